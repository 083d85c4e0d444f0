/**
 * One HTTP/2 stream as a gRPC call, seen from the server (gRPC over HTTP2, PROTOCOL-HTTP2.md).
 *
 * The stock library for Node joins each message with its prefix in a buffer of its own for every client and queues it as a
 * whole. Here a message is written in parts that all clients share, each taken when the client has room for it.
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { STATUS } from '../../control-plane/status.ts';
import { CulvertError } from '../../errors.ts';
import type { Logger } from '../../log/logger.ts';
import { MessageReader } from './messages.ts';
import {
  type Call,
  framePrefix,
  type GrpcService,
  type Metadata,
  type Method,
  type Peer,
  type ServerStream,
  type StatusName,
  type StreamHandlers,
  type StreamMethod,
  type UnaryMethod,
} from './service.ts';

/** Methods by their path: `/package.Service/Method`. */
export type Methods = ReadonlyMap<string, Method>;

export function methodsOf(services: readonly GrpcService[]): Methods {
  return new Map(
    services.flatMap(({ name, methods }) =>
      Object.entries(methods).map(([method, how]) => [`/${name}/${method}`, how] as const),
    ),
  );
}

/** Serves what the client asks for on a new stream. Returns what ends it, if it is one that would go on for ever. */
export function serveCall(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders & { ':method'?: string | undefined; ':path'?: string | undefined },
  { methods, peer, log }: { readonly methods: Methods; readonly peer: Peer; readonly log: Logger },
): EndCall | null {
  // What went wrong on a stream shows in its end.
  stream.on('error', () => {});
  // One that was reset in the same moment cannot be answered any more.
  if (isGone(stream)) return null;
  if (headers[':method'] !== 'POST' || !headers['content-type']?.startsWith('application/grpc')) {
    stream.respond({ ':status': headers[':method'] === 'POST' ? 415 : 405 }, { endStream: true });
    return null;
  }
  const method = methods.get(headers[':path'] ?? '');
  const call: Call = { metadata: metadataOf(headers), peer };
  if (method === undefined) {
    const path = String(headers[':path']).slice(0, MAX_NAME);
    endCall(stream, 'UNIMPLEMENTED', `unknown method ${path}`);
  } else if (method.kind === 'unary') serveUnary(stream, method, call, log);
  else return serveStream(stream, method, call, log);
  return null;
}

export type EndCall = (code: StatusName, message: string) => void;

function serveUnary(stream: ServerHttp2Stream, method: UnaryMethod, call: Call, log: Logger): void {
  const reader = new MessageReader(method.maxRequest);
  let request: Buffer | null = null;
  const fail = (error: unknown) => endWithError(stream, error, log);
  const patience = setTimeout(fail, REQUEST_PATIENCE_MS, late());
  stream.on('close', () => clearTimeout(patience));
  stream.on('data', (bytes: Buffer) => {
    try {
      for (const message of reader.push(bytes)) {
        if (request !== null) throw new CulvertError('INVALID_ARGUMENT', 'more than one request');
        request = message;
      }
    } catch (error) {
      fail(error);
    }
  });
  stream.on('end', () => {
    clearTimeout(patience);
    if (stream.headersSent || isGone(stream)) return;
    if (request === null || !reader.isBetween) {
      fail(new CulvertError('INVALID_ARGUMENT', 'the call ended without a whole request'));
      return;
    }
    method.answer(request, call).then((answer) => {
      if (isGone(stream)) return;
      begin(stream);
      stream.write(framePrefix(answer.length));
      stream.write(answer);
      endCall(stream, 'OK', '');
    }, fail);
  });
}

function serveStream(stream: ServerHttp2Stream, method: StreamMethod, call: Call, log: Logger): EndCall {
  const reader = new MessageReader(method.maxRequest);
  const sender = new Sender(stream);
  let handlers: StreamHandlers;
  let isReading = false;
  let isOver = false;
  let patience: NodeJS.Timeout | undefined;
  /** Runs while a message has arrived in part. */
  let lateness: NodeJS.Timeout | null = null;
  const abort = () => stream.close(constants().NGHTTP2_CANCEL);
  const end: EndCall = (code, message) => {
    if (isOver) return;
    isOver = true;
    // Who takes nothing does not take its end either.
    patience = setTimeout(abort, END_PATIENCE_MS);
    sender.end(() => endCall(stream, code, message));
  };
  const fail = (error: unknown) => {
    const { code, message } = statusOf(error, log);
    end(code, message);
  };
  const face: ServerStream = {
    ...call,
    resume() {
      if (isReading) {
        // Until now the rest was not taken.
        lateness?.refresh();
        stream.resume();
      } else stream.on('data', read);
      isReading = true;
    },
    pause: () => void stream.pause(),
    send: (parts) => sender.send(parts),
    stalledMs: () => sender.stalledMs(),
    idleMs: () => sender.idleMs(),
    end,
    fail,
    abort,
  };

  function read(bytes: Buffer): void {
    if (isOver) return;
    try {
      for (const message of reader.push(bytes)) {
        notLate();
        handlers.message(message);
        if (isOver) return;
      }
      if (!reader.isBetween) lateness ??= setTimeout(fail, method.messageMs, late());
    } catch (error) {
      fail(error);
    }
  }

  function notLate(): void {
    if (lateness !== null) clearTimeout(lateness);
    lateness = null;
  }

  try {
    handlers = method.open(face);
  } catch (error) {
    endWithError(stream, error, log);
    return end;
  }
  stream.on('end', () => end('OK', ''));
  stream.on('close', () => {
    clearTimeout(patience);
    notLate();
    handlers.closed();
  });
  return end;
}

/** Writes messages part by part, as fast as the client takes them. */
class Sender {
  readonly #stream: ServerHttp2Stream;
  readonly #messages: Iterator<Uint8Array>[] = [];
  #current: Iterator<Uint8Array> | null = null;
  #isFull = false;
  /** Parts that are not on their way yet. */
  #outstanding = 0;
  #progressAt = performance.now();
  #finish: (() => void) | null = null;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
    stream.on('drain', () => {
      this.#isFull = false;
      this.#pump();
    });
  }

  send(parts: Iterable<Uint8Array>): void {
    if (this.#finish !== null || isGone(this.#stream)) return;
    begin(this.#stream);
    this.#messages.push(parts[Symbol.iterator]());
    this.#pump();
  }

  /** Calls `finish` after the message that is being sent; those that wait are dropped. */
  end(finish: () => void): void {
    if (this.#finish !== null) return;
    this.#finish = finish;
    this.#messages.length = 0;
    this.#pump();
  }

  stalledMs(): number {
    return this.#outstanding === 0 ? 0 : performance.now() - this.#progressAt;
  }

  idleMs(): number {
    const isIdle = this.#outstanding === 0 && this.#current === null && this.#messages.length === 0;
    return isIdle ? performance.now() - this.#progressAt : 0;
  }

  #pump(): void {
    while (!this.#isFull && !isGone(this.#stream)) {
      this.#current ??= this.#messages.shift() ?? null;
      if (this.#current === null) {
        this.#finish?.();
        return;
      }
      const { done, value } = this.#current.next();
      if (done) this.#current = null;
      else this.#write(value);
    }
  }

  #write(part: Uint8Array): void {
    if (this.#outstanding++ === 0) this.#progressAt = performance.now();
    this.#isFull = !this.#stream.write(part, this.#written);
  }

  readonly #written = () => {
    this.#outstanding--;
    this.#progressAt = performance.now();
  };
}

function late(): CulvertError {
  return new CulvertError('DEADLINE_EXCEEDED', 'the request is late');
}

function begin(stream: ServerHttp2Stream): void {
  if (stream.headersSent) return;
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
}

function endWithError(stream: ServerHttp2Stream, error: unknown, log: Logger): void {
  if (isGone(stream)) return;
  const { code, message } = statusOf(error, log);
  endCall(stream, code, message);
}

function statusOf(error: unknown, log: Logger): { code: StatusName; message: string } {
  if (error instanceof CulvertError && error.code in STATUS) {
    return { code: error.code as StatusName, message: error.message };
  }
  log.error('control::grpc', 'a call failed because of a defect', {
    error: error instanceof Error ? (error.stack ?? error.message) : String(error),
  });
  return { code: 'INTERNAL', message: 'internal error' };
}

/** Says the status, then lets go of the stream even if the client has more to say. */
function endCall(stream: ServerHttp2Stream, code: StatusName, message: string): void {
  if (isGone(stream) || stream.writableEnded) return;
  const status = {
    'grpc-status': String(STATUS[code]),
    ...(message === '' ? {} : { 'grpc-message': percentEncoded(message) }),
  };
  const release = () => {
    // Unread data would hold the stream.
    stream.resume();
    setImmediate(() => stream.close(constants().NGHTTP2_NO_ERROR));
  };
  if (stream.headersSent) {
    stream.once('wantTrailers', () => {
      if (isGone(stream)) return;
      stream.sendTrailers(status);
      release();
    });
    stream.end();
  } else {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...status }, { endStream: true });
    release();
  }
}

/** Whether answering would be an error. */
function isGone(stream: ServerHttp2Stream): boolean {
  return stream.destroyed || stream.closed;
}

function constants() {
  return process.getBuiltinModule('node:http2').constants;
}

function metadataOf(headers: IncomingHttpHeaders): Metadata {
  const metadata: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !name.startsWith(':')) metadata[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return metadata;
}

/** Status-Message of the protocol: what is not printable ASCII, and `%`, as UTF-8 in percent encoding. */
function percentEncoded(message: string): string {
  return message
    .slice(0, MAX_MESSAGE)
    .toWellFormed()
    .replace(/[^ -$&-~]+/gu, (text) => encodeURIComponent(text));
}

/** What a client's own words may fill of an answer. */
const MAX_NAME = 200;
const END_PATIENCE_MS = 10_000;
/** How long a request that is to be answered once may take to arrive. */
const REQUEST_PATIENCE_MS = 30_000;
/** Within what a client takes of headers by default. */
const MAX_MESSAGE = 2000;

/** What a gRPC service is to the server of the control plane: plain functions over serialized messages. */
import type { X509Certificate } from 'node:crypto';
import type { STATUS } from '../../control-plane/status.ts';
import { CulvertError } from '../../errors.ts';

export interface GrpcService {
  /** `package.Service` */
  readonly name: string;
  readonly methods: Readonly<Record<string, Method>>;
}

export type Method = UnaryMethod | StreamMethod;

/** A request and its answer. */
export interface UnaryMethod {
  readonly kind: 'unary';
  /** Of a request, in bytes. A longer one is refused with RESOURCE_EXHAUSTED. */
  readonly maxRequest: number;
  /**
   * The serialized answer.
   * @throws CulvertError with the name of a gRPC status as its code (see `refusal`); its message is told to the caller. Whatever
   * else is thrown is logged, and the caller hears of an internal error only.
   */
  answer(request: Buffer, call: Call): Promise<Uint8Array>;
}

/** Messages in both directions until one side ends it. */
export interface StreamMethod {
  readonly kind: 'stream';
  /** Of a message of the client, in bytes. */
  readonly maxRequest: number;
  /** How long one may take to arrive, from its first byte on, ms. The stream ends with DEADLINE_EXCEEDED otherwise. */
  readonly messageMs: number;
  /** @throws like `answer`; the stream is refused then */
  open(stream: ServerStream): StreamHandlers;
}

/** Who calls. */
export interface Call {
  /** Headers of the request by their names in lower case. */
  readonly metadata: Metadata;
  readonly peer: Peer;
}

export type Metadata = Readonly<Record<string, string>>;

export interface Peer {
  /** `ip:port`; `[ip]:port` of IPv6. */
  readonly address: string;
  /** The client's certificate if it gave one. It is verified: a connection with one that is not is refused. */
  readonly certificate: X509Certificate | null;
}

export interface StreamHandlers {
  message(bytes: Buffer): void;
  /** The client has gone, or the stream has ended otherwise. Nothing is heard of it after that. */
  closed(): void;
}

export interface ServerStream extends Call {
  /** Starts or stops reading; nothing is read before the first `resume`. */
  resume(): void;
  pause(): void;
  /**
   * Sends one message in parts, prefix included (`framePrefix`). The next part is taken when the client has taken those
   * before, so a slow client holds one part in memory. Further messages wait for their turn.
   */
  send(parts: Iterable<Uint8Array>): void;
  /** For how long the client has not taken what waits for it, ms; 0 when nothing waits. */
  stalledMs(): number;
  /** For how long nothing has waited for the client, ms; 0 when something does. */
  idleMs(): number;
  /** Ends the stream once what was sent before is on its way. */
  end(code: StatusName, message: string): void;
  /** Ends it with what an error says, see `UnaryMethod.answer`. */
  fail(error: unknown): void;
  /** Ends it at once, whatever waits: for a client that takes nothing. */
  abort(): void;
}

export type StatusName = keyof typeof STATUS;

/** What a caller is told when its request is not served. */
export function refusal(code: StatusName, message: string, cause?: unknown): CulvertError<StatusName> {
  return new CulvertError(code, message, { cause });
}

/** The five bytes before a message of that length (gRPC over HTTP2, Length-Prefixed-Message). */
export function framePrefix(length: number): Buffer {
  const prefix = Buffer.alloc(PREFIX_LENGTH);
  prefix.writeUInt32BE(length, 1);
  return prefix;
}

export const PREFIX_LENGTH = 5;

import type { RequestHead } from '../../../../src/hbone/connect-headers.ts';
import { Http2Connection, type Http2Events, type Http2Options } from '../../../../src/hbone/connection.ts';
import {
  CLIENT_PREFACE,
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
  readUint16,
  readUint32,
  writeFrameHeader,
} from '../../../../src/hbone/frames.ts';
import { type HeaderField, HpackEncoder, maxEncodedSize } from '../../../../src/hbone/hpack.ts';
import { type Breach, errorCodeName, type Http2Error } from '../../../../src/hbone/http-error.ts';
import type { Http2Stream } from '../../../../src/hbone/stream.ts';
import { WindowBudget } from '../../../../src/hbone/window-budget.ts';
import { MemoryTransport } from './memory-transport.ts';
import { Recorder } from './recorder.ts';

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export type Role = Http2Options['role'];

/** A connection in memory with a clock that the test sets. */
export class ConnectionUnderTest {
  readonly transport: MemoryTransport;
  readonly connection: Http2Connection;
  /** Requests that have arrived, with their streams. */
  readonly requests: { readonly stream: Http2Stream; readonly head: RequestHead; readonly recorder: Recorder }[] = [];
  /** Error of the end; undefined while it goes on. */
  closed: Http2Error | null | undefined;
  goingAway: string[] = [];
  streamsClosed = 0;
  readonly breaches: Breach[] = [];
  now = 1000;
  /** Whether those who handle its streams take what comes; otherwise they stall. */
  reads = true;
  readonly #isServer: boolean;

  constructor(
    role: Role,
    options: Partial<Http2Options> = {},
    events: Partial<Http2Events> = {},
    transport = new MemoryTransport(),
  ) {
    this.transport = transport;
    this.#isServer = role === 'server';
    this.connection = new Http2Connection(
      this.transport,
      {
        role,
        initialWindow: 256 * 1024,
        maxWindow: 4 * 1024 * 1024,
        connectionWindow: 16 * 1024 * 1024,
        maxFrameSize: 1024 * 1024,
        maxHeaderListSize: 65_536,
        maxConcurrentStreams: 200,
        assumedPeerStreams: 100,
        budget: new WindowBudget(64 * 1024 * 1024),
        breached: (breach) => this.breaches.push(breach),
        now: () => this.now,
        ...options,
      },
      {
        request: (stream, head) => {
          const recorder = this.recorder();
          recorder.stream = stream;
          this.requests.push({ stream, head, recorder });
          return recorder;
        },
        goingAway: (code) => {
          this.goingAway.push(errorCodeName(code));
          events.goingAway?.(code);
        },
        streamClosed: () => {
          this.streamsClosed++;
          events.streamClosed?.();
        },
        closed: (error) => {
          this.closed = error;
          events.closed?.(error);
        },
      },
    );
    this.transport.connection = this.connection;
  }

  recorder(): Recorder {
    const recorder = new Recorder(this.transport.memory);
    recorder.reads = this.reads;
    return recorder;
  }

  /** Opens a stream with a CONNECT. */
  open(authority = '10.0.0.1:80'): { readonly stream: Http2Stream; readonly recorder: Recorder } {
    const recorder = this.recorder();
    const stream = this.connection.open(connectTo(authority), recorder);
    if (stream === null) throw new Error('no room for a stream');
    recorder.stream = stream;
    return { stream, recorder };
  }

  /** Sends as much as is allowed of `length` bytes; returns how much that was. */
  send(stream: Http2Stream, length: number, fill = 0x61): number {
    const { memory, scratchSize } = this.transport;
    // From the scratch space: behind it may lie what is being parsed.
    const start = FRAME_HEADER_SIZE;
    let sent = 0;
    while (sent < length) {
      const part = Math.min(stream.sendable(), length - sent, scratchSize - start);
      if (part === 0) {
        stream.waitForWindow();
        break;
      }
      memory.fill(fill, start, start + part);
      stream.send(start, part);
      sent += part;
    }
    return sent;
  }

  /** The frames that it has sent since the last call. */
  frames(): Frame[] {
    const bytes = this.transport.take();
    const hasPreface = bytes.indexOf(CLIENT_PREFACE) === 0;
    return parseFrames(hasPreface ? bytes.subarray(CLIENT_PREFACE.length) : bytes);
  }

  /** Those frames in words, one each. */
  said(): string[] {
    return this.frames().map(describe);
  }

  /** What a peer sends. */
  receive(...frames: readonly Uint8Array[]): void {
    this.transport.deliver(Buffer.concat(frames));
  }

  /** Gets it past the exchange of prefaces and SETTINGS, with settings of the peer when given. */
  established(settings: ReadonlyArray<readonly [id: number, value: number]> = []): this {
    if (this.#isServer) this.receive(CLIENT_PREFACE);
    this.receive(settingsFrame(settings), frame(FrameType.SETTINGS, FrameFlag.ACK, 0));
    this.frames();
    return this;
  }
}

/** Lets two connections talk until neither has anything to say. */
export function pump(a: ConnectionUnderTest, b: ConnectionUnderTest, most?: number): void {
  for (let quiet = 0; quiet < 2; ) {
    const bytes = a.transport.take();
    quiet = bytes.length === 0 ? quiet + 1 : 0;
    b.transport.deliver(bytes, most);
    [a, b] = [b, a];
  }
}

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = EMPTY): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_SIZE + payload.length);
  writeFrameHeader(bytes, 0, payload.length, type, flags, streamId);
  bytes.set(payload, FRAME_HEADER_SIZE);
  return bytes;
}

export function settingsFrame(settings: ReadonlyArray<readonly [id: number, value: number]>): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  for (const [i, [id, value]] of settings.entries()) {
    payload.writeUInt16BE(id, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  }
  return frame(FrameType.SETTINGS, 0, 0, payload);
}

/** Fields of 32 bits each. */
export function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, 4 * i);
  return bytes;
}

export function connectTo(authority: string): HeaderField[] {
  return [
    [':method', 'CONNECT'],
    [':authority', authority],
  ];
}

/** A header block that refers to no dynamic table, so that blocks can be sent in any order and left out. */
export function block(fields: readonly HeaderField[]): Buffer {
  const out = Buffer.alloc(maxEncodedSize(fields));
  const encoder = new HpackEncoder({ maxTableSize: 0 });
  return out.subarray(0, encoder.encode(fields, out, 0));
}

/** A CONNECT; `flags` beyond END_HEADERS. */
export function connectFrame(streamId: number, flags = 0, authority = '10.0.0.1:80'): Buffer {
  return frame(FrameType.HEADERS, FrameFlag.END_HEADERS | flags, streamId, block(connectTo(authority)));
}

export function responseFrame(streamId: number, status: number, flags = 0): Buffer {
  return frame(FrameType.HEADERS, FrameFlag.END_HEADERS | flags, streamId, block([[':status', String(status)]]));
}

export function parseFrames(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + FRAME_HEADER_SIZE + frameLength(bytes, at);
    if (end > bytes.length) throw new Error('a frame is cut off');
    frames.push({
      type: frameType(bytes, at),
      flags: frameFlags(bytes, at),
      streamId: frameStreamId(bytes, at),
      payload: bytes.subarray(at + FRAME_HEADER_SIZE, end),
    });
    at = end;
  }
  return frames;
}

/** `GOAWAY PROTOCOL_ERROR (last 3)`, `RST_STREAM 1 CANCEL`, `DATA 1 (5) END`, … */
export function describe({ type, flags, streamId, payload }: Frame): string {
  const ends = (flags & FrameFlag.END_STREAM) !== 0 ? ' END' : '';
  switch (type) {
    case FrameType.DATA:
      return `DATA ${streamId} (${payload.length})${ends}`;
    case FrameType.HEADERS:
      return `HEADERS ${streamId}${ends}`;
    case FrameType.CONTINUATION:
      return `CONTINUATION ${streamId}`;
    case FrameType.RST_STREAM:
      return `RST_STREAM ${streamId} ${errorCodeName(readUint32(payload, 0))}`;
    case FrameType.SETTINGS: {
      if ((flags & FrameFlag.ACK) !== 0) return 'SETTINGS ACK';
      const pairs: string[] = [];
      for (let at = 0; at < payload.length; at += 6) {
        pairs.push(`${readUint16(payload, at)}=${readUint32(payload, at + 2)}`);
      }
      return `SETTINGS ${pairs.join(' ')}`.trimEnd();
    }
    case FrameType.PING:
      return (flags & FrameFlag.ACK) !== 0 ? 'PING ACK' : 'PING';
    case FrameType.GOAWAY:
      return `GOAWAY ${errorCodeName(readUint32(payload, 4))} (last ${readUint32(payload, 0)})`;
    case FrameType.WINDOW_UPDATE:
      return `WINDOW_UPDATE ${streamId} +${readUint32(payload, 0)}`;
    default:
      return `type ${type}`;
  }
}

const EMPTY = new Uint8Array(0);

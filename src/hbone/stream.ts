// Hot path (bench/: relay, pods): one object per tunnelled connection, nothing allocated per frame.
import type { HeaderField } from './hpack.ts';
import type { StreamTable } from './stream-table.ts';

/** How a stream ended before its time. */
export interface StreamReset {
  /** The code of RST_STREAM, or of the error that ended the connection (RFC 9113 §7). */
  readonly code: number;
  /** True when the peer provably did not act on the request, so that it may be sent again (RFC 9113 §8.7). */
  readonly unprocessed: boolean;
  /** Words for the log. */
  readonly detail: string;
}

/** Who carries the bytes of a stream. Called while a frame is parsed; memory is valid until the call returns. */
export interface StreamHandler {
  /**
   * The final response, 200..999 (client role). Interim responses and trailers are checked and go no further: a byte
   * stream has no use for them.
   */
  streamResponse(status: number, headers: readonly HeaderField[]): void;
  streamData(offset: number, length: number): void;
  /** END_STREAM: the peer sends no more. */
  streamEnded(): void;
  /** The stream is gone; nothing follows. */
  streamReset(reset: StreamReset): void;
  /** `sendable()` has become greater than 0 again. */
  streamWritable(): void;
}

export class Http2Stream {
  readonly id: number;
  readonly #table: StreamTable;
  handler: StreamHandler;
  /** What the peer lets us send on this stream; can be negative after SETTINGS (RFC 9113 §6.9.2). */
  sendWindow: number;
  /** Sent and not returned as credit by the peer: its reader may not have taken it. */
  unread = 0;
  /** More than half of `sendWindow` has been in use since all of it was returned. */
  usedMostly = false;
  /** What we have let the peer send on this stream. */
  receiveWindow: number;
  /** The size that the receive window is refilled to. */
  windowSize: number;
  /** How much of that it kept when windows shrank; it does not grow by that when they grow. */
  kept = 0;
  /** What the peer was let send beyond that size; the next credit is less by it. */
  beyond = 0;
  /** Received and not returned as credit yet. */
  uncredited = 0;
  /** Padding received and not returned as credit yet. */
  padding = 0;
  /** Credit returned before and since `windowStart`, which tells how fast the window is used. */
  taken = 0;
  credited = 0;
  windowStart = 0;
  localEnded = false;
  remoteEnded = false;
  /** Both sides have ended, or one has reset it, or the connection is over: nothing is sent or heard any more. */
  closed = false;
  /** Bytes sent in one of the scheduler's seconds. */
  served = 0;
  servedIn = 0;
  /** In the scheduler's list of streams that wait for window. */
  waiting = false;
  /** From when on the scheduler has seen it wait for its own window; 0 when it has not. */
  waitingSince = 0;
  /** The request (server role) or the final response (client role) has come: what follows is content. */
  headReceived = false;

  constructor(table: StreamTable, id: number, handler: StreamHandler, sendWindow: number, window: number) {
    this.#table = table;
    this.id = id;
    this.handler = handler;
    this.sendWindow = sendWindow;
    this.receiveWindow = window;
    this.windowSize = window;
  }

  /** Bytes that may be sent now: the windows of stream and connection, and whether the tunnel keeps up. */
  sendable(): number {
    return this.#table.scheduler.sendable(this);
  }

  /** How much of `sendable` to read from the application at a time, so that streams of a congested tunnel share it. */
  turn(): number {
    return this.#table.scheduler.turn(this);
  }

  /** Asks for `streamWritable` when `sendable` is 0. */
  waitForWindow(): void {
    this.#table.scheduler.wait(this);
  }

  /** Sends at most `sendable()` bytes of memory; the 9 bytes in front are overwritten. */
  send(offset: number, length: number): void {
    this.#table.scheduler.send(this, offset, length);
  }

  /** END_STREAM: nothing more is sent. */
  end(): void {
    this.#table.end(this);
  }

  respond(fields: readonly HeaderField[], end: boolean): void {
    this.#table.respond(this, fields, end);
  }

  /** RST_STREAM; the handler hears nothing more. */
  reset(code: number): void {
    this.#table.reset(this, code);
  }

  /** The reader has taken `bytes` of what `streamData` brought: the peer may send as much again. */
  credit(bytes: number): void {
    this.#table.windows.credit(this, bytes);
  }

  /** Bytes held back after which credit is due: a quarter of the window keeps the sender busy (measured). */
  get creditThreshold(): number {
    return this.windowSize >> 2;
  }
}

import type { RequestHead } from './connect-headers.ts';
import type { Breach, Http2Error } from './http-error.ts';
import type { Http2Stream, StreamHandler } from './stream.ts';
import type { WindowBudget } from './window-budget.ts';

/** What carries a connection: a TLS channel, or a stream of another connection. */
export interface Http2Transport {
  /** `receive` gets offsets into it; the first `scratchSize` bytes are for frames that are built here. */
  readonly memory: Uint8Array;
  readonly scratchSize: number;
  /** Takes bytes of `memory`. Returns how many wait to be sent, -1 when the transport is closed. */
  write(offset: number, length: number): number;
  /** The same for a DATA frame; the 9 bytes in front of the payload are free for its header. */
  writeData(streamId: number, flags: number, offset: number, length: number): number;
  /** Sends what is queued; returns what the other side did not take. `drained` is called when that gets less. */
  flush(): number;
  /** Sends what is queued, then closes. */
  close(): void;
}

export interface Http2Options {
  readonly role: 'client' | 'server';
  /** First receive window of a stream, in bytes, and the most it grows to with demand. */
  readonly initialWindow: number;
  readonly maxWindow: number;
  /** Receive window of the connection; credit for it is returned on receipt, so no stream can use it up. */
  readonly connectionWindow: number;
  readonly maxFrameSize: number;
  readonly maxHeaderListSize: number;
  /** Streams a client peer may have open (server role). */
  readonly maxConcurrentStreams: number;
  /** Streams to assume as allowed until the peer's SETTINGS say so (client role). */
  readonly assumedPeerStreams: number;
  readonly budget: WindowBudget;
  /** Counts what peers do against the RFCs or beyond a bound, on a stream or on the connection. */
  readonly breached: (breach: Breach) => void;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

export interface Http2Events {
  /** A request arrived (server role). Returns who handles the stream; it may respond at once. */
  request(stream: Http2Stream, head: RequestHead): StreamHandler;
  /** The peer will take no new streams; existing ones go on. */
  goingAway(code: number): void;
  /** A stream ended: there may be room for another. */
  streamClosed(): void;
  /** The connection is over and every stream has been told. `error` is null after an orderly end. */
  closed(error: Http2Error | null): void;
}

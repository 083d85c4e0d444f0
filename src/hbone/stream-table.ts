import type { FloodGuard } from './flood-guard.ts';
import type { FrameSender } from './frame-sender.ts';
import type { HeaderField } from './hpack.ts';
import type { Http2Error } from './http-error.ts';
import type { Http2Options } from './http2.ts';
import type { ReceiveWindows } from './receive-windows.ts';
import { RecentResets } from './recent-resets.ts';
import type { SendScheduler } from './send-scheduler.ts';
import type { Settings } from './settings.ts';
import { Http2Stream, type StreamHandler, type StreamReset } from './stream.ts';

/** The streams of a connection that are not closed, and how they get there (RFC 9113 §5.1). */
export class StreamTable {
  readonly scheduler: SendScheduler;
  readonly windows: ReceiveWindows;
  readonly #isServer: boolean;
  readonly #sender: FrameSender;
  readonly #peer: Settings;
  readonly #guard: FloodGuard;
  readonly #now: () => number;
  readonly #breached: Http2Options['breached'];
  readonly #gone: () => void;
  readonly #streams = new Map<number, Http2Stream>();
  readonly #resets = new RecentResets();
  /** The next one that this side opens (client role). */
  nextId = 1;
  /** The last one that the peer has opened (server role). */
  lastPeerId = 0;
  /** Requests that the peer has made. */
  #requests = 0;

  /** `gone` is called whenever a stream has left. */
  constructor(
    options: Http2Options,
    peer: Settings,
    sender: FrameSender,
    scheduler: SendScheduler,
    windows: ReceiveWindows,
    guard: FloodGuard,
    gone: () => void,
  ) {
    this.#isServer = options.role === 'server';
    this.#now = options.now;
    this.#breached = options.breached;
    this.#peer = peer;
    this.#sender = sender;
    this.scheduler = scheduler;
    this.windows = windows;
    this.#guard = guard;
    this.#gone = gone;
  }

  get size(): number {
    return this.#streams.size;
  }

  get(id: number): Http2Stream | undefined {
    return this.#streams.get(id);
  }

  all(): IterableIterator<Http2Stream> {
    return this.#streams.values();
  }

  /** Nobody has opened it yet. */
  isIdle(id: number): boolean {
    const own = (id & 1) === (this.#isServer ? 0 : 1);
    return own ? id >= this.nextId || this.#isServer : id > this.lastPeerId;
  }

  /** Why a frame came on a stream that is closed (RFC 9113 §5.1, §5.1.1). */
  whyClosed(id: number): 'reset-here' | 'closed' | 'skipped' {
    if (this.#resets.has(id)) return 'reset-here';
    // Nobody but a client skips ids: as long as none was, every one below the last has been in use.
    return this.#isServer && this.#requests < (this.lastPeerId + 1) / 2 ? 'skipped' : 'closed';
  }

  /** A request has come on a new stream (server role). */
  requested(id: number): void {
    this.lastPeerId = id;
    this.#requests++;
  }

  /** The stream of a request that is not even looked at. */
  refuse(id: number, code: number, peerEnded: boolean): void {
    this.#sender.reset(id, code);
    if (!peerEnded) this.#resets.add(id);
  }

  /** A stream that has no handler yet; null when it has shown that the peer does not read, and the connection is over. */
  add(id: number): Http2Stream | null {
    const stream = new Http2Stream(this, id, NO_HANDLER, this.#peer.initialWindowSize, this.windows.initialWindow);
    // Before anything is sent because of it: what ends the connection must find it here.
    this.#streams.set(id, stream);
    this.windows.opened(stream);
    return stream.closed ? null : stream;
  }

  // What this side does.

  respond(stream: Http2Stream, fields: readonly HeaderField[], end: boolean): void {
    if (stream.closed || stream.localEnded) return;
    this.#guard.earn(1);
    this.#sender.headers(stream.id, this.#sender.encode(fields), end);
    if (end) this.#endLocal(stream);
  }

  end(stream: Http2Stream): void {
    if (stream.closed || stream.localEnded) return;
    this.#sender.endStream(stream.id);
    this.#endLocal(stream);
  }

  reset(stream: Http2Stream, code: number): void {
    if (stream.closed) return;
    this.#sender.reset(stream.id, code);
    this.abandon(stream);
  }

  /** The peer may not know yet that the stream is closed. */
  abandon(stream: Http2Stream): void {
    if (!stream.remoteEnded) this.#resets.add(stream.id);
    this.drop(stream);
  }

  // What the peer does.

  /** END_STREAM of the peer. */
  endRemote(stream: Http2Stream): void {
    stream.remoteEnded = true;
    if (stream.localEnded) this.drop(stream);
    stream.handler.streamEnded();
  }

  /** Ends one stream because of what the peer did on it. */
  fault(stream: Http2Stream, fault: Http2Error): void {
    this.#breached(fault.breach);
    this.#guard.count(this.#now(), 'stream-errors', 'stream error');
    this.reset(stream, fault.http2Code);
    stream.handler.streamReset({ code: fault.http2Code, unprocessed: false, detail: fault.message });
  }

  /** The stream is closed; its handler knows or is told by the caller. */
  drop(stream: Http2Stream): void {
    if (stream.closed) return;
    this.#streams.delete(stream.id);
    this.#let(stream);
    this.scheduler.stopWaiting(stream);
    this.#gone();
  }

  /** The end of the connection. */
  dropAll(reset: StreamReset): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) this.#let(stream);
    for (const stream of streams) stream.handler.streamReset(reset);
  }

  #endLocal(stream: Http2Stream): void {
    stream.localEnded = true;
    if (stream.remoteEnded) this.drop(stream);
  }

  #let(stream: Http2Stream): void {
    stream.closed = true;
    this.windows.closed(stream);
  }
}

const NO_HANDLER: StreamHandler = {
  streamResponse() {},
  streamData() {},
  streamEnded() {},
  streamReset() {},
  streamWritable() {},
};

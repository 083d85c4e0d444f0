import type { FloodGuard } from './flood-guard.ts';
import type { FrameSender } from './frame-sender.ts';
import type { HeaderField } from './hpack.ts';
import type { Http2Error } from './http-error.ts';
import type { Http2Options } from './http2.ts';
import type { ReceiveWindows } from './receive-windows.ts';
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
  readonly #gone: () => void;
  readonly #streams = new Map<number, Http2Stream>();
  /** The next one that this side opens (client role). */
  nextId = 1;
  /** The last one that the peer has opened (server role). */
  lastPeerId = 0;

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

  add(id: number, handler: StreamHandler): Http2Stream {
    const stream = new Http2Stream(this, id, handler, this.#peer.initialWindowSize, this.windows.initialWindow);
    this.windows.opened(stream);
    this.#streams.set(id, stream);
    return stream;
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
    this.#guard.count(this.#now(), 'stream error');
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

// Hot path (bench/: relay, pods): called per DATA frame and per portion that a reader has taken.
import type { FrameSender } from './frame-sender.ts';
import { DEFAULT_WINDOW_SIZE } from './frames.ts';
import { connectionError } from './http-error.ts';
import type { Http2Options } from './http2.ts';
import type { Http2Stream } from './stream.ts';

/** A stream that uses up a whole window within this time (ms) wants a larger one: covers any sensible round trip. */
const FAST_WINDOW = 200;

/**
 * What the peer may send (RFC 9113 §6.9). Credit of the connection is returned on receipt, that of a stream when its
 * reader has taken the bytes: what a stream holds back never stops its siblings.
 */
export class ReceiveWindows {
  readonly #options: Http2Options;
  readonly #sender: FrameSender;
  #window: number;
  #uncredited = 0;
  #acknowledged = false;
  /** When something was last received. */
  #now: number;

  constructor(options: Http2Options, sender: FrameSender) {
    this.#options = options;
    this.#sender = sender;
    this.#window = options.connectionWindow;
    this.#now = options.now();
  }

  /** The time at which what comes now was received. */
  set now(now: number) {
    this.#now = now;
  }

  /** First window of a stream: until SETTINGS are acknowledged a peer may go by the default (RFC 9113 §6.9.2). */
  get initialWindow(): number {
    return this.#options.initialWindow;
  }

  opened(stream: Http2Stream): void {
    stream.receiveWindow += this.#assumed();
  }

  settingsAcknowledged(streams: Iterable<Http2Stream>): void {
    const excess = this.#assumed();
    this.#acknowledged = true;
    if (excess > 0) for (const stream of streams) stream.receiveWindow -= excess;
  }

  /** A DATA frame came, for a stream that is gone perhaps. */
  received(length: number): void {
    if (length > this.#window) throw connectionError('FLOW_CONTROL_ERROR', 'more DATA than the connection window');
    this.#window -= length;
    this.#uncredited += length;
    if (this.#uncredited >= this.#options.connectionWindow >> 2) {
      this.#sender.windowUpdate(0, this.#uncredited);
      this.#window += this.#uncredited;
      this.#uncredited = 0;
    }
  }

  /** Returns credit to the peer; the window grows when the stream is fast and its reader keeps up. */
  credit(stream: Http2Stream, bytes: number): void {
    if (stream.closed || stream.remoteEnded) return;
    stream.uncredited -= bytes;
    stream.credited += bytes;
    let increment = bytes;
    if (stream.credited >= stream.windowSize) {
      if (this.#now - stream.windowStart < FAST_WINDOW) increment += this.#grow(stream);
      stream.credited = 0;
      stream.windowStart = this.#now;
    }
    stream.receiveWindow += increment;
    this.#sender.windowUpdate(stream.id, increment);
  }

  /** Padding counts against the window but reaches nobody: its credit is returned without anybody taking it. */
  padding(stream: Http2Stream, bytes: number): void {
    stream.padding += bytes;
    if (stream.padding < stream.creditThreshold || stream.remoteEnded) return;
    stream.receiveWindow += stream.padding;
    this.#sender.windowUpdate(stream.id, stream.padding);
    stream.padding = 0;
  }

  closed(stream: Http2Stream): void {
    this.#options.budget.giveBack(stream.windowSize - this.#options.initialWindow);
    stream.windowSize = this.#options.initialWindow;
  }

  #assumed(): number {
    return this.#acknowledged ? 0 : Math.max(0, DEFAULT_WINDOW_SIZE - this.#options.initialWindow);
  }

  #grow(stream: Http2Stream): number {
    const { maxWindow, budget } = this.#options;
    const growth = Math.min(stream.windowSize, maxWindow - stream.windowSize);
    if (growth <= 0 || !budget.take(growth)) return 0;
    stream.windowSize += growth;
    return growth;
  }
}

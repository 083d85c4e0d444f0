// Hot path (bench/: relay, pods): asked per read of an application and per DATA frame.

import type { FrameSender } from './frame-sender.ts';
import { DEFAULT_WINDOW_SIZE, MAX_WINDOW_SIZE } from './frames.ts';
import { connectionError } from './http-error.ts';
import type { Http2Stream } from './stream.ts';

/** Bytes that may wait in the transport before streams stop sending, and below which they go on. */
const HIGH_WATER = 512 * 1024;
const LOW_WATER = 128 * 1024;

/** Bytes that a stream sends before it queues up behind the others again: what one read of an application may bring. */
const TURN = 256 * 1024;

/** Which stream may send how much: the peer's windows, what the transport takes, and turns. */
export class SendScheduler {
  readonly #sender: FrameSender;
  /** What the peer lets us send on the connection. */
  window = DEFAULT_WINDOW_SIZE;
  /** The transport has more than it can send: no stream may add to it. */
  congested = false;
  #waiting: Http2Stream[] = [];
  /** In front of them: those whose turn the transport has cut short. */
  #interrupted: Http2Stream[] = [];

  constructor(sender: FrameSender) {
    this.#sender = sender;
  }

  /** Bytes that the stream may send now. */
  sendable(stream: Http2Stream): number {
    return this.congested ? 0 : Math.max(0, Math.min(stream.sendWindow, this.window));
  }

  /** Sends at most `sendable` bytes; the 9 bytes in front of them are overwritten. */
  send(stream: Http2Stream, offset: number, length: number): void {
    stream.sendWindow -= length;
    this.window -= length;
    stream.turn -= length;
    const queued = this.#sender.data(stream.id, offset, length);
    if (queued > HIGH_WATER && !this.congested) this.congested = this.#sender.flush() > LOW_WATER;
  }

  /** The stream has more to send than it may. It is told when that changes. */
  wait(stream: Http2Stream): void {
    if (stream.waiting || stream.closed) return;
    stream.waiting = true;
    if (stream.turn > 0 && this.congested) {
      this.#interrupted.push(stream);
      return;
    }
    // Who has sent too much gets less the next time (deficit round robin).
    stream.turn = Math.max(1, stream.turn + TURN);
    this.#waiting.push(stream);
  }

  stopWaiting(stream: Http2Stream): void {
    if (!stream.waiting) return;
    stream.waiting = false;
    for (const queue of [this.#interrupted, this.#waiting]) {
      const at = queue.indexOf(stream);
      if (at >= 0) queue.splice(at, 1);
    }
  }

  /** WINDOW_UPDATE of the connection. */
  windowOpened(increment: number): void {
    this.window += increment;
    if (this.window > MAX_WINDOW_SIZE)
      throw connectionError('FLOW_CONTROL_ERROR', 'the connection window exceeds 2^31-1');
    this.wake();
  }

  /** The stream's own window has grown. */
  streamOpened(stream: Http2Stream): void {
    if (!stream.waiting || this.sendable(stream) === 0) return;
    this.stopWaiting(stream);
    stream.handler.streamWritable();
  }

  /** The transport has sent some of what waited; `queued` bytes are left. */
  drained(queued: number): void {
    if (!this.congested || queued > LOW_WATER) return;
    this.congested = false;
    this.wake();
  }

  /**
   * Every waiting stream that can send is told so, in the order of their turns. Most of them read what they send later: by
   * then the transport may be congested again, and those at the end keep their turns.
   */
  wake(): void {
    if (this.congested || this.#interrupted.length + this.#waiting.length === 0) return;
    const interrupted = this.#interrupted;
    const waiting = this.#waiting;
    this.#interrupted = [];
    this.#waiting = [];
    // Those that come to wait again meanwhile are behind those that could not be told.
    const stillInterrupted = this.#tell(interrupted);
    const stillWaiting = this.#tell(waiting);
    if (stillInterrupted.length > 0) this.#interrupted = stillInterrupted.concat(this.#interrupted);
    if (stillWaiting.length > 0) this.#waiting = stillWaiting.concat(this.#waiting);
  }

  /** Returns those that can send nothing still. */
  #tell(streams: readonly Http2Stream[]): Http2Stream[] {
    const still: Http2Stream[] = [];
    for (const stream of streams) {
      if (stream.closed) continue;
      if (this.sendable(stream) === 0) {
        still.push(stream);
        continue;
      }
      stream.waiting = false;
      stream.handler.streamWritable();
    }
    return still;
  }
}

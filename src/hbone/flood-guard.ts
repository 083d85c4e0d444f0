import { type Breach, connectionError } from './http-error.ts';

/** Frames that cost their sender nothing, per second that may go on, and at once. A tunnel of short streams needs few. */
const PER_SECOND = 1_000;
const BURST = 10_000;

/**
 * Bounds what a peer can make us do without moving data: PING, SETTINGS, RST_STREAM, empty DATA, PRIORITY, unknown
 * frames (rapid reset, CVE-2023-44487, and its relatives). Streams that were answered pay for their own end, so that
 * applications which close with a reset can do so at any rate.
 */
export class FloodGuard {
  #left = BURST;
  #since: number;

  constructor(now: number) {
    this.#since = now;
  }

  /** A stream went its way: that many frames at its end are no flood. */
  earn(frames: number): void {
    this.#left = Math.min(BURST, this.#left + frames);
  }

  /** Counts one such frame. Throws ENHANCE_YOUR_CALM when there were too many. `now` in milliseconds. */
  count(now: number, breach: Breach, what: string): void {
    if (this.#left > 0) {
      this.#left--;
      return;
    }
    this.#left = Math.min(BURST, Math.floor(((now - this.#since) * PER_SECOND) / 1000));
    this.#since = now;
    if (this.#left <= 0) throw connectionError('ENHANCE_YOUR_CALM', `too many frames without use (${what})`, breach);
  }
}

/** Resets that are remembered: frames of the peer that cross one are late, not wrong. */
const REMEMBERED = 128;

/**
 * Streams that this side has reset while the peer could still send. What crosses the reset must be discarded (RFC 9113
 * §5.1); on any other closed stream the peer knows better.
 */
export class RecentResets {
  #ids: Uint32Array | null = null;
  #next = 0;
  #lastForgotten = 0;

  add(streamId: number): void {
    this.#ids ??= new Uint32Array(REMEMBERED);
    const at = this.#next % REMEMBERED;
    this.#lastForgotten = Math.max(this.#lastForgotten, this.#ids[at]!);
    this.#ids[at] = streamId;
    this.#next++;
  }

  /** Frames on this closed stream may be late. True in doubt, for streams below those that have been forgotten. */
  has(streamId: number): boolean {
    return this.#ids !== null && (streamId <= this.#lastForgotten || this.#ids.includes(streamId));
  }
}

import type { Direction } from '../filters/connection.ts';

/**
 * How many connections a pod has, in each direction, over all threads. Shared memory in which each thread writes only its
 * own two counters, so that those of a thread that crashed can be cleared.
 */
export class ConnectionCounts {
  readonly #counts: Int32Array;
  readonly #own: number;

  /** `thread` is the number of this thread, from 1. */
  constructor(shared: SharedArrayBuffer, thread: number) {
    this.#counts = new Int32Array(shared);
    this.#own = DIRECTIONS * (thread - 1);
  }

  add(direction: Direction, change: 1 | -1): void {
    Atomics.add(this.#counts, this.#own + OFFSETS[direction], change);
  }

  total(direction: Direction): number {
    let total = 0;
    for (let at = OFFSETS[direction]; at < this.#counts.length; at += DIRECTIONS)
      total += Atomics.load(this.#counts, at);
    return total;
  }

  /** The thread is gone, and its connections with it. */
  clear(): void {
    for (let at = 0; at < DIRECTIONS; at++) Atomics.store(this.#counts, this.#own + at, 0);
  }
}

/** The memory for the counts of one pod. */
export function newConnectionCounts(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(DIRECTIONS * threads * Int32Array.BYTES_PER_ELEMENT);
}

const DIRECTIONS = 2;
const OFFSETS: Readonly<Record<Direction, number>> = { inbound: 0, outbound: 1 };

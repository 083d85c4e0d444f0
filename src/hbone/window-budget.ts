/**
 * Memory that receive windows may take. A window is a promise to buffer that much for a reader that stalls, so the windows
 * of all streams of all threads share one budget. It lives in shared memory: one cell per thread, written by that thread
 * alone, so that what a crashed thread held is free again once its successor has started.
 */
export class WindowBudget {
  /** Bytes for all threads together. */
  readonly limit: number;
  /** KiB in use, by thread. */
  readonly #cells: Int32Array;
  readonly #own: number;
  #used = 0;

  /** `cells` of `sharedBudget`, of which this thread takes over number `own`; left out by whoever has the budget alone. */
  constructor(limit: number, cells: SharedArrayBuffer | null = null, own = 0) {
    this.limit = limit;
    this.#cells = cells === null ? new Int32Array(1) : new Int32Array(cells);
    this.#own = own;
    Atomics.store(this.#cells, own, 0);
  }

  /** Bytes that this thread has taken. */
  get used(): number {
    return this.#used;
  }

  /** Bytes that all threads have taken, to the KiB. */
  get total(): number {
    const cells = this.#cells;
    let sum = 0;
    for (let i = 0; i < cells.length; i++) sum += Atomics.load(cells, i);
    return sum * 1024;
  }

  /** Grants all of `bytes` or nothing. */
  take(bytes: number): boolean {
    this.reserve(bytes);
    // Taken first and looked at then: two threads can both be refused, never both be granted the last of it.
    if (this.total <= this.limit) return true;
    this.giveBack(bytes);
    return false;
  }

  /** Takes what a peer has been promised already, beyond the limit too. */
  reserve(bytes: number): void {
    this.#used += bytes;
    Atomics.store(this.#cells, this.#own, Math.ceil(this.#used / 1024));
  }

  giveBack(bytes: number): void {
    this.reserve(-bytes);
  }
}

/** The cells of a budget for so many threads. */
export function sharedBudget(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * threads);
}

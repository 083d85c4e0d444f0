/**
 * Memory that receive windows may grow into. A window is a promise to buffer that much for a reader that stalls, so all
 * windows of a process share one budget; every stream has its first window for free.
 */
export class WindowBudget {
  readonly limit: number;
  #used = 0;

  /** `limit` in bytes. */
  constructor(limit: number) {
    this.limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  /** Grants all of `bytes` or nothing. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.limit) return false;
    this.#used += bytes;
    return true;
  }

  giveBack(bytes: number): void {
    this.#used -= bytes;
  }
}

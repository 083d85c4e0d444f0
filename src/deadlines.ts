/**
 * Many timeouts of one length, for the price of one coarse timer: they fall due in the order they were set. A deadline
 * fires up to one tick late.
 */
export class Deadlines {
  readonly #duration: number;
  readonly #now: () => number;
  readonly #queue: Deadline[] = [];
  #first = 0;

  /** `duration` in ms; 0 switches them off. */
  constructor(duration: number, now: () => number) {
    this.#duration = duration;
    this.#now = now;
  }

  /** Calls `expired` once the time has passed, unless the deadline is cleared before. */
  set(expired: () => void): Deadline {
    const deadline = new Deadline(this.#now() + this.#duration, expired);
    if (this.#duration > 0) this.#queue.push(deadline);
    return deadline;
  }

  /** Fires what is due. Called by the thread's tick. */
  tick(): void {
    const now = this.#now();
    while (this.#first < this.#queue.length) {
      const deadline = this.#queue[this.#first]!;
      if (!deadline.isCleared && deadline.at > now) break;
      this.#first++;
      deadline.fire();
    }
    if (this.#first > 1024 || this.#first === this.#queue.length) {
      this.#queue.splice(0, this.#first);
      this.#first = 0;
    }
  }
}

export class Deadline {
  readonly at: number;
  #expired: (() => void) | null;

  constructor(at: number, expired: () => void) {
    this.at = at;
    this.#expired = expired;
  }

  get isCleared(): boolean {
    return this.#expired === null;
  }

  /** Lets go of the callback and what it refers to. */
  clear(): void {
    this.#expired = null;
  }

  fire(): void {
    const expired = this.#expired;
    this.#expired = null;
    expired?.();
  }
}

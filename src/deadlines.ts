/**
 * Many timeouts of one length, for the price of one coarse timer: they fall due in the order they were set. A deadline
 * fires up to one tick late.
 *
 * Most are cleared long before: they leave the list at once, so that they die young (bench/: pods, new connections).
 */
export class Deadlines {
  readonly #duration: number;
  readonly #now: () => number;
  readonly #list: List = { first: null, last: null };

  /** `duration` in ms; 0 switches them off. */
  constructor(duration: number, now: () => number) {
    this.#duration = duration;
    this.#now = now;
  }

  /** Calls `expired` once the time has passed, unless the deadline is cleared before; it is told the time of the tick. */
  set(expired: (now: number) => void): Deadline {
    const isOn = this.#duration > 0;
    return new Deadline(isOn ? this.#list : null, isOn ? this.#now() + this.#duration : 0, expired);
  }

  /**
   * Fires what is due at `now`. Called by the thread's tick, which has read since then all that had arrived by then: what
   * arrives while it reads or waits for a processor is not late.
   */
  tick(now: number): void {
    for (let first = this.#list.first; first !== null && first.at <= now; first = this.#list.first) first.fire(now);
  }
}

interface List {
  first: Deadline | null;
  last: Deadline | null;
}

export class Deadline {
  readonly at: number;
  #list: List | null;
  #previous: Deadline | null = null;
  #next: Deadline | null = null;
  #expired: ((now: number) => void) | null;

  /** Goes to the end of `list`; null when it never falls due. */
  constructor(list: List | null, at: number, expired: (now: number) => void) {
    this.at = at;
    this.#expired = expired;
    this.#list = list;
    if (list === null) return;
    this.#previous = list.last;
    if (list.last === null) list.first = this;
    else list.last.#next = this;
    list.last = this;
  }

  /** Lets go of the callback and what it refers to. */
  clear(): void {
    this.#expired = null;
    this.#leave();
  }

  fire(now: number): void {
    const expired = this.#expired;
    this.clear();
    expired?.(now);
  }

  /** Refers to no other one afterwards: what is old would keep what is young. */
  #leave(): void {
    const list = this.#list;
    if (list === null) return;
    if (this.#previous === null) list.first = this.#next;
    else this.#previous.#next = this.#next;
    if (this.#next === null) list.last = this.#previous;
    else this.#next.#previous = this.#previous;
    this.#list = this.#previous = this.#next = null;
  }
}

/** A wait is looked at so many times before it is over. */
const LOOKS = 4;

/**
 * A wait of `ms` for something to come, a little longer where the thread stood still meanwhile (no processor, a process
 * that was stopped): it then has as long as one look takes to read what has come, before it says that nothing came.
 */
export class Patience {
  readonly #step: number;
  readonly #over: () => void;
  readonly #timer: NodeJS.Timeout;
  #turn: NodeJS.Immediate | undefined;
  #left = LOOKS;
  #lookedAt = performance.now();
  #stoodStill = false;

  /** Calls back once, unless it was ended before. */
  constructor(ms: number, over: () => void) {
    this.#step = ms / LOOKS;
    this.#over = over;
    this.#timer = setInterval(() => this.#look(), this.#step);
  }

  /** It does not keep the process alive. */
  unref(): this {
    this.#timer.unref();
    return this;
  }

  end(): void {
    clearInterval(this.#timer);
    clearImmediate(this.#turn);
  }

  #look(): void {
    const now = performance.now();
    // Where all looks are late, every other one counts.
    this.#stoodStill = !this.#stoodStill && now - this.#lookedAt > 2 * this.#step;
    this.#lookedAt = now;
    if (this.#stoodStill || --this.#left > 0) return;
    clearInterval(this.#timer);
    // What is there has its turn first.
    this.#turn = setImmediate(this.#over);
  }
}

import { collectGarbage } from '../garbage.ts';

/** Fewer connections than this are not worth a collection. */
const WORTHWHILE = 1000;

/**
 * Gives memory back after a crowd of connections has left: V8 collects only when something is allocated, which an idle
 * thread does not do, and the allocator keeps what was freed.
 */
export class MemoryRelease {
  readonly #trim: () => void;
  #peak = 0;

  /** `trim` returns the allocator's free memory to the system. */
  constructor(trim: () => void) {
    this.#trim = trim;
  }

  /** Looks at the number of open connections; called every second or so. */
  observe(connections: number): void {
    this.#peak = Math.max(this.#peak, connections);
    if (this.#peak < WORTHWHILE || connections > this.#peak / 4) return;
    this.#peak = connections;
    collectGarbage('major');
    this.#trim();
  }
}

/**
 * Collects what has died young. V8 does not count memory that threads share, so an idle thread would keep what it was
 * once told of for ever: 1 GB after a thousand edits of a set of policies that takes 1 MB.
 */
export function collectYoung(): void {
  collectGarbage('minor');
}

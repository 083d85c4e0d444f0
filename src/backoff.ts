/** Delays between attempts at something that may stay unavailable for long. */
export interface Backoff {
  /** Milliseconds to wait before the next attempt. */
  next(): number;
  /** Call after success: the next delay is the first one again. */
  reset(): void;
}

export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
  /** Share by which a delay may be shorter or longer, 0 … 1. */
  readonly jitter: number;
  /** Returns 0 (included) to 1. */
  readonly random: () => number;
}

/** Each delay is twice the one before, up to the maximum; the jitter is applied last. */
export function createBackoff({ firstMs, maxMs, jitter, random }: BackoffOptions): Backoff {
  let step = firstMs;
  return {
    next() {
      const delay = step * (1 + jitter * (2 * random() - 1));
      step = Math.min(step * 2, maxMs);
      return delay;
    },
    reset() {
      step = firstMs;
    },
  };
}

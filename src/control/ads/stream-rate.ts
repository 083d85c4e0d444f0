/**
 * How many new streams a second are served: when all clients come at once, as after the loss of a replica, each waits for
 * its turn. A place in the queue costs both sides less than to be refused and to come again.
 */
export interface StreamRate {
  /** How long the caller has to wait, ms; null when that is too long, and it should come again. */
  admit(): number | null;
}

/** @param perSecond also the number that is admitted at once after a quiet second */
export function createStreamRate(perSecond: number, patienceMs: number, now = () => performance.now()): StreamRate {
  const interval = 1000 / perSecond;
  /** When the rate is used up to. */
  let usedUntil = Number.NEGATIVE_INFINITY;
  return {
    admit() {
      const at = now();
      const wait = Math.max(0, Math.max(0, usedUntil - at) + interval - 1000);
      if (wait > patienceMs) return null;
      usedUntil = Math.max(usedUntil, at) + interval;
      return wait;
    },
  };
}

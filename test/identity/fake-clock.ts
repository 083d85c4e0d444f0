import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../../src/identity/manager.ts';

/** Time that passes only when told to. */
export interface FakeClock extends Clock {
  /** Lets timers fire in their order, with everything that follows from each before the next. */
  advance(ms: number): Promise<void>;
  /** Sets the clock by that much, or back: timers take as long as before. */
  set(byMs: number): void;
  /** Delays of the timers that are set. */
  delays(): number[];
}

export function createFakeClock(start = Date.UTC(2030, 0)): FakeClock {
  let now = start;
  let setBy = 0;
  const timers = new Set<{ at: number; action: () => void }>();
  return {
    now: () => now + setBy,
    set(byMs) {
      setBy += byMs;
    },
    schedule(delayMs, action) {
      const timer = { at: now + delayMs, action };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    async advance(ms) {
      const end = now + ms;
      await setImmediate();
      for (;;) {
        const [next] = [...timers].sort((a, b) => a.at - b.at);
        if (next === undefined || next.at > end) break;
        timers.delete(next);
        now = next.at;
        next.action();
        await setImmediate();
      }
      now = end;
    },
    delays: () => [...timers].map(({ at }) => at - now),
  };
}

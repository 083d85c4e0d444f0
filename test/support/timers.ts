import type { Timers } from '../../src/zds/types.ts';

/** Time that passes only when told to. */
export interface ManualTimers extends Timers {
  /** Lets `ms` pass: everything due is called in order, with what it causes settled before the next. */
  advance(ms: number): Promise<void>;
  /** Milliseconds until each pending callback, ascending. */
  pending(): number[];
}

export function manualTimers(): ManualTimers {
  let now = 0;
  const entries = new Set<{ due: number; callback: () => void }>();
  return {
    after(ms, callback) {
      const entry = { due: now + ms, callback };
      entries.add(entry);
      return () => entries.delete(entry);
    },
    async advance(ms) {
      const end = now + ms;
      for (;;) {
        const next = [...entries].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due)[0];
        if (next === undefined) break;
        entries.delete(next);
        now = next.due;
        next.callback();
        await settled();
      }
      now = end;
    },
    pending: () => [...entries].map(({ due }) => due - now).sort((a, b) => a - b),
  };
}

/** Resolves when every promise that can settle without outside help has. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

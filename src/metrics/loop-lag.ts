import { performance } from 'node:perf_hooks';

export interface LoopLag {
  /** Seconds since the last call. A tick that is due now and has not come yet counts. */
  take(): { mean: number; max: number };
  stop(): void;
}

/**
 * A stall shorter than this may be missed, a longer one shows less by up to this. The ticks cost an idle thread 0.07 % of
 * a core. (Node's own histogram is not used: its sampling per turn misses what I/O callbacks take, and resetting the
 * sampling by interval drops the stall that is going on.)
 */
const TICK_MS = 200;

/** Measures how late this thread's loop gets to what is due, in the background. */
export function measureLoopLag(): LoopLag {
  let last = performance.now();
  let ticks = 0;
  let sum = 0;
  let max = 0;

  function lateness(): number {
    return Math.max(0, performance.now() - last - TICK_MS);
  }

  function tick(): void {
    const late = lateness();
    sum += late;
    max = Math.max(max, late);
    ticks++;
    last = performance.now();
  }

  const timer = setInterval(tick, TICK_MS).unref();
  return {
    take() {
      max = Math.max(max, lateness());
      const lag = { mean: ticks === 0 ? 0 : sum / ticks / 1000, max: max / 1000 };
      ticks = 0;
      sum = 0;
      max = 0;
      return lag;
    },
    stop: () => clearInterval(timer),
  };
}

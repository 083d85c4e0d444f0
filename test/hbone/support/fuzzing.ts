import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface FuzzReport {
  readonly cases: number;
  /** Growth of the heap behind the first second, in octets, with all garbage collected. */
  readonly heapGrowth: number;
}

/** Seconds for each fuzzer: 10, or 600 with CULVERT_FUZZ=long, or as many as that says. */
export function fuzzSeconds(): number {
  const asked = process.env.CULVERT_FUZZ;
  return asked === undefined ? 10 : asked === 'long' ? 600 : Number(asked);
}

/** The first case: another one in every run, or that of CULVERT_SEED. */
export function fuzzSeed(): number {
  return Number(process.env.CULVERT_SEED ?? Date.now());
}

/** Runs cases from `seed` on until the time is up and there were more than 100. Throws on the first failing case, naming its seed. */
export function runCases(seconds: number, seed: number, runCase: (seed: number) => void): FuzzReport {
  const start = performance.now();
  let heapBefore = 0;
  let cases = 0;
  // A machine that stands still must not end it before there is something to compare with.
  const isIncomplete = () => cases <= 100 || heapBefore === 0;
  for (let elapsed = 0; elapsed < seconds * 1000 || isIncomplete(); elapsed = performance.now() - start) {
    if (heapBefore === 0 && elapsed > Math.min(1000, seconds * 300)) heapBefore = collectedHeap();
    for (let i = 0; i < 50; i++, cases++) {
      try {
        runCase(seed + cases);
      } catch (cause) {
        throw new Error(`fuzz case ${seed + cases}: ${cause instanceof Error ? cause.message : cause}`, { cause });
      }
    }
  }
  return { cases, heapGrowth: collectedHeap() - heapBefore };
}

function collectedHeap(): number {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

import { readFileSync } from 'node:fs';

const PERIOD_MS = 5000;

/** Resident memory of a process, sampled every five seconds until `stop`. */
export interface ResidentMemory {
  /** MiB, in order. */
  readonly samples: readonly number[];
  stop(): void;
  /** Means of the four quarters of the time so far, in MiB. */
  quarters(): readonly number[];
  /** Slope of the line through the samples behind the first quarter, in MiB per hour. */
  slope(): number;
}

export function watchResidentMemory(pid: number): ResidentMemory {
  const samples = [residentMebibytes(pid)];
  const timer = setInterval(() => {
    try {
      samples.push(residentMebibytes(pid));
    } catch {
      clearInterval(timer); // the process is gone
    }
  }, PERIOD_MS);
  return {
    samples,
    stop: () => clearInterval(timer),
    quarters() {
      const size = Math.max(1, Math.floor(samples.length / 4));
      return [0, 1, 2, 3].map((quarter) => mean(samples.slice(quarter * size, (quarter + 1) * size)));
    },
    slope() {
      const late = samples.slice(Math.floor(samples.length / 4));
      const middle = (late.length - 1) / 2;
      const average = mean(late);
      let product = 0;
      let square = 0;
      for (const [i, value] of late.entries()) {
        product += (i - middle) * (value - average);
        square += (i - middle) ** 2;
      }
      return (product / square) * (3_600_000 / PERIOD_MS);
    },
  };
}

/** Shared library text included. */
export function residentMebibytes(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Rss:\s+(\d+) kB/m.exec(rollup)?.[1]) / 1024;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** *control-mesh*: what the mesh state of the own control plane takes, to be built and to follow changes. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Bench } from './harness/bench.ts';
import type { Bound, Figure } from './harness/figures.ts';

/** What control/mesh-state.ts says; times in ms where not said otherwise. */
interface Result {
  readonly seconds: number;
  readonly filledStall: number;
  readonly changedStall: number;
  readonly residentMb: number;
  readonly peakMb: number;
  readonly emptyMb: number;
  /** Sorted. */
  readonly podChangesMs: readonly number[];
  readonly serviceChangeMs: number;
  readonly everythingMs: number;
}

const script = fileURLToPath(new URL('control/mesh-state.ts', import.meta.url));

export const controlMesh: Bench = async ({ quick, progress }) => [
  ...(await measure(10_000, 1000, { seconds: 5, megabytes: 250, stall: 50 }, progress)),
  ...(quick ? [] : await measure(200_000, 10_000, { seconds: null, megabytes: 1024, stall: null }, progress)),
];

async function measure(
  pods: number,
  services: number,
  wanted: { readonly seconds: number | null; readonly megabytes: number; readonly stall: number | null },
  progress: (line: string) => void,
): Promise<Figure[]> {
  // As in bin/culvert.
  const node = ['--max-semi-space-size=1', script, String(pods), String(services)];
  const { stdout } = await promisify(execFile)(process.execPath, node, { maxBuffer: 16 * 1024 * 1024 });
  const result = JSON.parse(stdout) as Result;
  progress(`control-mesh, ${pods} pods: ${result.seconds.toFixed(2)} s, ${result.residentMb} MB`);
  const { podChangesMs } = result;
  const percentile = (share: number) => podChangesMs[Math.floor(podChangesMs.length * share)]!;
  const name = `${pods} pods in ${services} services`;
  return [
    figure(
      name,
      `from JSON to resources; longest stall ${result.filledStall.toFixed(0)} ms`,
      result.seconds,
      `${result.seconds.toFixed(2)} s`,
      wanted.seconds === null ? null : { atMost: wanted.seconds },
    ),
    figure(
      name,
      `resident, ${result.emptyMb} MB when empty, ${result.peakMb} MB at most`,
      result.residentMb,
      `${result.residentMb} MB`,
      { atMost: wanted.megabytes },
    ),
    figure(
      name,
      `a pod changes, p50 ${percentile(0.5).toFixed(2)} ms; a service with ${Math.ceil(pods / services)} pods ${result.serviceChangeMs.toFixed(1)} ms`,
      percentile(0.99),
      `p99 ${percentile(0.99).toFixed(2)} ms`,
      { atMost: 50 },
    ),
    figure(
      name,
      `everything changes in ${(result.everythingMs / 1000).toFixed(2)} s`,
      result.changedStall,
      `stall ${result.changedStall.toFixed(0)} ms`,
      // Of the larger mesh it is the garbage collector's, which takes 40 to 80 ms to finish with 400 MB.
      wanted.stall === null ? null : { atMost: wanted.stall },
    ),
  ];
}

function figure(load: string, measured: string, value: number, printed: string, bound: Bound): Figure {
  return { what: `control-mesh, ${load}`, measured, value, printed, bound };
}

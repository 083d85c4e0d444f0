/**
 * *scale*: the bundled agent, with its pods and threads, of a node in a large cluster: how soon it is usable, and what it
 * takes when it has the whole mesh.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { transformSync } from 'esbuild';
import type { Bench } from './harness/bench.ts';
import { startMesh } from './harness/mesh.ts';
import { type Running, residentBytes, startProcess } from './harness/processes.ts';
import type { Turns } from './xds/turns.ts';

const WORKLOADS = 200_000;
const POLICIES = 2000;
const GENERATION_TIMEOUT_MS = 120_000;
const TAKE_IN_TIMEOUT_MS = 60_000;
/** What collectors and allocators take to give back what an agent at rest does not need. */
const SETTLE_MS = 15_000;
const MEGABYTE = 1024 * 1024;

const script = (name: string) => fileURLToPath(new URL(`xds/${name}.ts`, import.meta.url));

export const scale: Bench = async ({ folder, quick, workers, progress }) => {
  const workloads = quick ? WORKLOADS / 10 : WORKLOADS;
  const files = join(folder, 'scale');
  mkdirSync(files, { recursive: true });
  const turns = join(files, 'turns.json');
  const preload = join(files, 'turns.mjs');
  // The agent is to load no compiler.
  writeFileSync(preload, transformSync(readFileSync(script('turns'), 'utf8'), { loader: 'ts' }).code);
  const started: { controlPlane: Running | null } = { controlPlane: null };
  const mesh = await startMesh({
    enrolled: ['client', 'server'],
    plain: [],
    workers,
    async controlPlane(netns) {
      const port = 15_012;
      const argv = [process.execPath, script('control-plane'), workloads, port, files, 0, POLICIES].map(String);
      started.controlPlane = await startProcess(argv, {
        netns,
        ready: { line: /^ready$/m },
        timeout: GENERATION_TIMEOUT_MS,
      });
      return {
        XDS_ADDRESS: `localhost:${port}`,
        XDS_ROOT_CA: join(files, 'root.pem'),
        NODE_OPTIONS: `--import=${pathToFileURL(preload)}`,
        BENCH_TURNS: turns,
      };
    },
  });
  try {
    const status = await acknowledged(join(files, 'status.json'));
    progress(
      `scale, ${workloads} workloads: usable after ${(status.acknowledgedMs / 1000).toFixed(2)} s, resident ${megabytes(residentBytes(mesh.agent.pid))}`,
    );
    await delay(SETTLE_MS);
    const resident = residentBytes(mesh.agent.pid);
    if (process.env.INSPECT_PAUSE) {
      progress(`pid ${mesh.agent.pid}`);
      await delay(Number(process.env.INSPECT_PAUSE));
    }
    await mesh.agent.stop();
    const [longest, work] = longestTurn(turns, status);
    const what = `scale, ${workloads} workloads, ${workloads / 20} services, ${POLICIES} policies, ${workers} workers`;
    return [
      {
        what: `${what}: usable`,
        measured: `${(status.bytes / 1e6).toFixed(0)} MB of mesh`,
        value: status.acknowledgedMs / 1000,
        printed: `${(status.acknowledgedMs / 1000).toFixed(2)} s`,
        bound: { atMost: 3 },
      },
      {
        what: `${what}: longest turn of the control thread`,
        // The rest of what passes it waits for a processor, beside the control plane and a collector of its own.
        measured: `${longest.toFixed(1)} ms passed at most`,
        value: work,
        printed: `${work.toFixed(1)} ms of CPU`,
        bound: { atMost: 20 },
      },
      {
        what: `${what}: memory`,
        measured: 'resident, all of the agent',
        value: resident / MEGABYTE,
        printed: megabytes(resident),
        bound: { atMost: 300 },
      },
    ];
  } finally {
    await mesh.stop();
    await started.controlPlane?.stop();
  }
};

/**
 * ms that the longest turn took while the mesh came in, and ms that the one with most work worked; 0 without a long one.
 *
 * @throws Error when not all of that time was measured
 */
function longestTurn(file: string, { sentAt, acknowledgedMs }: Status): [passed: number, worked: number] {
  const { from, until, ticks, long } = JSON.parse(readFileSync(file, 'utf8')) as Turns;
  const end = sentAt + acknowledgedMs;
  if (from > sentAt || until < end) {
    throw new Error(
      `turns were measured from ${from} to ${until} (${ticks} of them), the mesh came from ${sentAt} to ${end}`,
    );
  }
  const turns = long.filter(({ at, passed }) => at > sentAt && at - passed < end);
  return [Math.max(0, ...turns.map(({ passed }) => passed)), Math.max(0, ...turns.map(({ worked }) => worked))];
}

interface Status {
  readonly bytes: number;
  /** Unix time in ms. */
  readonly sentAt: number;
  readonly acknowledgedMs: number;
}

async function acknowledged(file: string): Promise<Status> {
  for (const end = Date.now() + TAKE_IN_TIMEOUT_MS; ; await delay(100)) {
    const status = JSON.parse(readFileSync(file, 'utf8'));
    if (status.rejected !== null) throw new Error(`the agent rejected: ${status.rejected}`);
    if (status.acknowledgedMs > 0) return status;
    if (Date.now() > end) throw new Error('the agent did not take in the mesh');
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / MEGABYTE).toFixed(0)} MB`;
}

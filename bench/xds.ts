/**
 * *xds*: how a snapshot of a large mesh is taken in, in one response as istiod sends it; what changes of workloads cost new
 * connections; what a connected agent does when nothing happens.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Bench } from './harness/bench.ts';
import { type Bound, type Figure, median } from './harness/figures.ts';
import { runLoad } from './harness/load.ts';
import { type Mesh, startMesh } from './harness/mesh.ts';
import { startOrigin } from './harness/origin.ts';
import { cpuSeconds, type Running, startProcess } from './harness/processes.ts';

const CHANGES_PER_SECOND = 2000;
const HTTP_PORT = 8080;
const GENERATION_TIMEOUT_MS = 120_000;

const script = (name: string) => fileURLToPath(new URL(`xds/${name}.ts`, import.meta.url));

export const xds: Bench = async ({ folder, quick, workers, progress }) => [
  ...(await takeIn(folder, quick ? 20_000 : 200_000, quick ? 1 : 3, progress)),
  ...(await underChanges({ folder, quick, workers, progress })),
];

/** What consumer.ts and control-plane.ts say. */
type Result = Record<
  'resources' | 'worstStallMs' | 'worstTurnMs' | 'cpuMs' | 'grownMb' | 'bytes' | 'acknowledgedMs',
  number
>;

/** The client and the mesh state alone, in a process that sees each of its stalls. */
async function takeIn(folder: string, workloads: number, rounds: number, progress: (line: string) => void) {
  const port = 15_912;
  const { files, process: controlPlane } = await startControlPlane(join(folder, 'snapshot'), workloads, port, null);
  try {
    const results: Result[] = [];
    for (let round = 0; round < rounds; round++) {
      const { stdout } = await promisify(execFile)(process.execPath, [
        // As in bin/culvert.
        '--max-semi-space-size=4',
        script('consumer'),
        `https://localhost:${port}`,
        join(files, 'root.pem'),
      ]);
      await delay(100);
      const result = {
        ...JSON.parse(stdout),
        ...JSON.parse(readFileSync(join(files, 'status.json'), 'utf8')),
      } as Result;
      results.push(result);
      progress(
        `xds, ${workloads} workloads: ${(result.acknowledgedMs / 1000).toFixed(2)} s, worst stall ${result.worstStallMs.toFixed(1)} ms`,
      );
    }
    const of = (name: keyof Result) => median(results.map((result) => result[name]));
    const name = `${workloads} workloads in one response`;
    const megabytes = (of('bytes') / 1e6).toFixed(0);
    const seconds = of('acknowledgedMs') / 1000;
    const stall = of('worstStallMs');
    return [
      figure(name, `${megabytes} MB, ${of('cpuMs').toFixed(0)} ms CPU`, seconds, `${seconds.toFixed(2)} s`, {
        atMost: 4,
      }),
      figure(name, `longest turn ${of('worstTurnMs').toFixed(1)} ms of CPU`, stall, `stall ${stall.toFixed(1)} ms`, {
        atMost: 20,
      }),
      figure(name, 'resident memory grew by', of('grownMb'), `${of('grownMb')} MB`, null),
    ];
  } finally {
    await controlPlane.stop();
  }
}

/** New connections between two pods of an agent, while workloads of other nodes change and while they do not. */
async function underChanges({ folder, quick, workers, progress }: Parameters<Bench>[0]): Promise<Figure[]> {
  const stops: (() => Promise<void> | void)[] = [];
  const seconds = quick ? 2 : 5;
  const rounds = quick ? 1 : 3;
  const started: { controlPlane: Running | null } = { controlPlane: null };
  const pods = { enrolled: ['client', 'server'], plain: [], workers };
  try {
    const mesh = await startMesh({
      ...pods,
      async controlPlane(netns) {
        const port = 15_012;
        const { files, process } = await startControlPlane(join(folder, 'changes'), quick ? 5000 : 50_000, port, netns);
        started.controlPlane = process;
        return { XDS_ADDRESS: `localhost:${port}`, XDS_ROOT_CA: join(files, 'root.pem') };
      },
    });
    stops.push(
      () => started.controlPlane?.stop(),
      () => mesh.stop(),
    );
    const [client, server] = mesh.enrolled;
    if (client === undefined || server === undefined) throw new Error('a pod is missing');
    const origin = await startOrigin(folder, {
      host: server.ipv4,
      httpPort: HTTP_PORT,
      bulkPort: HTTP_PORT + 1,
      netns: server.netns.fd,
    });
    stops.push(() => origin.stop());
    // One at a time: more of them at once keep two processors busy, and their 99th percentile is the wait for a processor.
    const load = () =>
      runLoad(
        { kind: 'new-connections', connections: 1 },
        { host: server.ipv4, port: HTTP_PORT },
        seconds,
        client.netns.fd,
      );
    const toggle = () => process.kill(started.controlPlane!.pid, 'SIGUSR2');
    await load();
    const quiet: number[] = [];
    const busy: number[] = [];
    for (let round = 0; round < rounds; round++) {
      quiet.push((await load()).p99!);
      toggle();
      await delay(500);
      busy.push((await load()).p99!);
      toggle();
      await delay(500);
      progress(`xds, new connections: p99 ${quiet.at(-1)} ms, with changes ${busy.at(-1)} ms`);
    }
    const ratio = median(busy) / median(quiet);
    const connected = await idleCpu(mesh, seconds * 2);
    for (const stop of stops.splice(0).reverse()) await stop();
    const alone = await startMesh(pods);
    stops.push(() => alone.stop());
    const without = await idleCpu(alone, seconds * 2);
    return [
      figure(
        `${CHANGES_PER_SECOND} changes/s`,
        `p99 of new connections ${median(quiet).toFixed(2)} ms, then ${median(busy).toFixed(2)} ms`,
        ratio,
        ratio.toFixed(2),
        { atMost: 2 },
      ),
      figure(
        'idle',
        `local file ${without.toFixed(1)} ms CPU/s, control plane ${connected.toFixed(1)} ms CPU/s`,
        connected - without,
        `${(connected - without).toFixed(1)} ms/s`,
        // The clock of processes has steps of 10 ms.
        { atMost: 3 },
      ),
    ];
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
}

/** ms of CPU a second that the agent uses when nothing happens. */
async function idleCpu({ agent }: Mesh, seconds: number): Promise<number> {
  await delay(3000);
  const before = cpuSeconds([agent.pid]);
  await delay(seconds * 1000);
  return ((cpuSeconds([agent.pid]) - before) * 1000) / seconds;
}

async function startControlPlane(files: string, workloads: number, port: number, netns: number | null) {
  mkdirSync(files, { recursive: true });
  const argv = [process.execPath, script('control-plane'), workloads, port, files, CHANGES_PER_SECOND].map(String);
  const started = await startProcess(argv, {
    ...(netns === null ? {} : { netns }),
    ready: { line: /^ready$/m },
    timeout: GENERATION_TIMEOUT_MS,
  });
  return { files, process: started };
}

function figure(name: string, measured: string, value: number, printed: string, bound: Bound): Figure {
  return { what: `xds, ${name}`, measured, value, printed, bound };
}

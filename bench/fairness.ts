/**
 * *fairness*: what connections that share a tunnel do to each other: 100 downloads of 1 MB at a time, and 150 downloads
 * whose readers have stopped beside other traffic between the same two pods.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Pod } from '../src/demo/pod-network.ts';
import type { Bench, BenchOptions } from './harness/bench.ts';
import { type Downloads, downloads } from './harness/downloads.ts';
import { type Figure, median, thousands } from './harness/figures.ts';
import { type Load, runLoad } from './harness/load.ts';
import { type Mesh, startMesh } from './harness/mesh.ts';
import { startOrigin } from './harness/origin.ts';
import { residentBytes } from './harness/processes.ts';

const MEGABYTE = 1024 * 1024;
/** As many as the default lets into one tunnel. */
const SHARING = 100;
const STALLED = 150;
const HTTP_PORT = 8080;
const BULK_PORT = 5201;
const load: Load = { kind: 'requests', connections: 16 };
/** What is still moving when readers have stopped comes to rest in this time; so does what the agent gives back. */
const SETTLE_MS = 2500;

export const fairness: Bench = async (options) => {
  // One thread, so that there is one tunnel; and what a node has, as each thread keeps memory of its own.
  const figures = [await sharing(options), ...(await besideStalled(options, 1))];
  if (options.workers > 1) figures.push(...(await besideStalled(options, options.workers)));
  return figures;
};

async function sharing({ quick, progress }: BenchOptions): Promise<Figure> {
  return withDownloads(1, async ({ traffic }) => {
    const spreads: number[] = [];
    const lasts: number[] = [];
    for (let round = 0; round < (quick ? 1 : 5); round++) {
      await traffic.connect(SHARING);
      const times = (await traffic.fetch(MEGABYTE)).sort((a, b) => a - b);
      await traffic.close();
      spreads.push(times.at(-1)! / times[0]!);
      lasts.push(times.at(-1)!);
      progress(
        `fairness, ${SHARING} × 1 MB: first ${times[0]!.toFixed(0)} ms, median ${median(times).toFixed(0)} ms, last ${times.at(-1)!.toFixed(0)} ms`,
      );
    }
    const spread = median(spreads);
    const measured = `last after ${median(lasts).toFixed(0)} ms`;
    return figure(`${SHARING} streams of 1 MB`, measured, spread, `${spread.toFixed(2)}× the first`, { atMost: 1.3 });
  });
}

async function besideStalled({ folder, quick, progress }: BenchOptions, workers: number): Promise<Figure[]> {
  return withDownloads(workers, async ({ agent, client, server, traffic }) => {
    const at = { host: server.ipv4, httpPort: HTTP_PORT, bulkPort: BULK_PORT, netns: server.netns.fd };
    const origin = await startOrigin(folder, at);
    try {
      const slice = () => runLoad(load, { host: server.ipv4, port: HTTP_PORT }, quick ? 1 : 3, client.netns.fd);
      await slice();
      const alone: number[] = [];
      const beside: number[] = [];
      const held: number[] = [];
      const left: number[] = [];
      await delay(SETTLE_MS);
      // Before anything has been stalled: an allocator does not give everything back.
      const before = residentBytes(agent.pid);
      for (let round = 0; round < (quick ? 1 : 4); round++) {
        alone.push((await slice()).rate);
        await traffic.connect(STALLED);
        traffic.stall();
        await delay(SETTLE_MS);
        held.push(residentBytes(agent.pid) - before);
        beside.push((await slice()).rate);
        await traffic.close();
        await delay(SETTLE_MS);
        left.push(residentBytes(agent.pid) - before);
        progress(
          `fairness, ${STALLED} stalled downloads, ${threads(workers)}: alone ${thousands(alone.at(-1)!)}/s, beside them ${thousands(beside.at(-1)!)}/s, ${megabytes(held.at(-1)!)} held, ${megabytes(left.at(-1)!)} left`,
        );
      }
      const ratio = median(beside) / median(alone);
      const most = Math.max(...held);
      const rates = `alone ${thousands(median(alone))}/s, beside them ${thousands(median(beside))}/s`;
      const name = `${STALLED} stalled downloads, ${threads(workers)}`;
      return [
        figure(`beside ${name}`, rates, ratio, ratio.toFixed(2), { atLeast: 0.95 }),
        figure(name, 'held by the agent', most / MEGABYTE, megabytes(most), { atMost: 64 }),
        figure(name, 'left of that afterwards', left.at(-1)! / MEGABYTE, megabytes(left.at(-1)!), { atMost: 16 }),
      ];
    } finally {
      await origin.stop();
    }
  });
}

interface Stage {
  readonly agent: Mesh['agent'];
  readonly client: Pod;
  readonly server: Pod;
  readonly traffic: Downloads;
}

async function withDownloads<T>(workers: number, measure: (stage: Stage) => Promise<T>): Promise<T> {
  const { agent, enrolled, stop } = await startMesh({ enrolled: ['client', 'server'], plain: [], workers });
  try {
    const [client, server] = enrolled as [Pod, Pod];
    const traffic = downloads(client, server);
    try {
      return await measure({ agent, client, server, traffic });
    } finally {
      traffic.stop();
    }
  } finally {
    await stop();
  }
}

function threads(workers: number): string {
  return workers === 1 ? '1 worker' : `${workers} workers`;
}

function figure(name: string, measured: string, value: number, printed: string, bound: Figure['bound']): Figure {
  return { what: `fairness, ${name}`, measured, value, printed, bound };
}

function megabytes(bytes: number): string {
  return `${(bytes / MEGABYTE).toFixed(1)} MB`;
}

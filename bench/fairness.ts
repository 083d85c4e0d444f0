/**
 * *fairness*: what connections that share a tunnel do to each other: 100 downloads of 1 MB at a time, and 150 downloads
 * whose readers have stopped beside other traffic between the same two pods.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Pod } from '../src/demo/pod-network.ts';
import type { Bench } from './harness/bench.ts';
import { downloads } from './harness/downloads.ts';
import { type Figure, median, thousands } from './harness/figures.ts';
import { type Load, runLoad } from './harness/load.ts';
import { startMesh } from './harness/mesh.ts';
import { startOrigin } from './harness/origin.ts';
import { residentBytes } from './harness/processes.ts';

const MEGABYTE = 1024 * 1024;
/** As many as the default lets into one tunnel. */
const SHARING = 100;
const STALLED = 150;
const HTTP_PORT = 8080;
const BULK_PORT = 5201;
const load: Load = { kind: 'requests', connections: 16 };
/** What is still moving when readers have stopped comes to rest in this time. */
const SETTLE_MS = 2000;

export const fairness: Bench = async ({ folder, quick, progress }) => {
  const seconds = quick ? 1 : 4;
  const rounds = quick ? 1 : 5;
  // One thread, so that there is one tunnel.
  const mesh = await startMesh({ enrolled: ['client', 'server'], plain: [], workers: 1 });
  const stops: (() => Promise<void> | void)[] = [() => mesh.stop()];
  try {
    const [client, server] = mesh.enrolled as [Pod, Pod];
    const at = { host: server.ipv4, httpPort: HTTP_PORT, bulkPort: BULK_PORT, netns: server.netns.fd };
    const origin = await startOrigin(folder, at);
    stops.push(() => origin.stop());
    const traffic = downloads(client, server);
    stops.push(() => traffic.stop());
    const slice = () => runLoad(load, { host: server.ipv4, port: HTTP_PORT }, seconds, client.netns.fd);
    await slice();

    const alone: number[] = [];
    const beside: number[] = [];
    const held: number[] = [];
    await delay(SETTLE_MS);
    // Before anything has been stalled: an allocator does not give everything back.
    const before = residentBytes(mesh.agent.pid);
    for (let round = 0; round < rounds; round++) {
      alone.push((await slice()).rate);
      await traffic.connect(STALLED);
      traffic.stall();
      await delay(SETTLE_MS);
      held.push(residentBytes(mesh.agent.pid) - before);
      beside.push((await slice()).rate);
      await traffic.close();
      progress(
        `fairness, ${STALLED} stalled downloads: alone ${thousands(alone.at(-1)!)}/s, beside them ${thousands(beside.at(-1)!)}/s, ${megabytes(held.at(-1)!)} held`,
      );
    }
    const spreads: number[] = [];
    const lasts: number[] = [];
    for (let round = 0; round < rounds; round++) {
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
    const ratio = median(beside) / median(alone);
    const most = Math.max(...held);
    return [
      figure(
        `${SHARING} streams of 1 MB`,
        `last after ${median(lasts).toFixed(0)} ms`,
        spread,
        `${spread.toFixed(2)}× the first`,
        { atMost: 1.3 },
      ),
      figure(
        `beside ${STALLED} stalled downloads`,
        `alone ${thousands(median(alone))}/s, beside them ${thousands(median(beside))}/s`,
        ratio,
        ratio.toFixed(2),
        { atLeast: 0.95 },
      ),
      figure(`${STALLED} stalled downloads`, 'held by the agent', most / MEGABYTE, megabytes(most), { atMost: 64 }),
    ];
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
};

function figure(name: string, measured: string, value: number, printed: string, bound: Figure['bound']): Figure {
  return { what: `fairness, ${name}`, measured, value, printed, bound };
}

function megabytes(bytes: number): string {
  return `${(bytes / MEGABYTE).toFixed(1)} MB`;
}

/**
 * *memory*: what the bundled agent takes with three pods and one worker when idle, per held connection (both ends in
 * this agent), and after they have closed.
 */
import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Pod } from '../src/demo/pod-network.ts';
import type { Bench } from './harness/bench.ts';
import type { Bound, Figure } from './harness/figures.ts';
import { idleConnections } from './harness/idle-connections.ts';
import { startMesh } from './harness/mesh.ts';
import { residentBytes } from './harness/processes.ts';

const MEGABYTE = 1024 * 1024;
/** Connections that are held first, so that what is paid once (compiled code, first tunnels) is not counted per connection. */
const FIRST = 2000;
const MORE = 6000;
/** Tunnels outlive their streams for a while, and have both ends here. The number is the default of the setting. */
const STREAMS_PER_TUNNEL = 100;
const SPARE_DESCRIPTORS = 10;
const SETTLE_MS = 10_000;
const CLOSE_TIMEOUT_MS = 30_000;

export const memory: Bench = async ({ progress }) => {
  const mesh = await startMesh({ enrolled: ['client', 'server', 'third'], plain: [], workers: 1 });
  const { pid } = mesh.agent;
  const [client, server] = mesh.enrolled as [Pod, Pod];
  const connections = idleConnections(client, server);
  try {
    const resident = async (state: string) => {
      // Collectors and allocators give back what they do not need a while after it became free.
      await delay(SETTLE_MS);
      const bytes = residentBytes(pid);
      progress(`memory, ${state}: ${megabytes(bytes)}, ${descriptors(pid)} descriptors`);
      return bytes;
    };
    const idle = await resident('idle');
    const openWhenIdle = descriptors(pid);

    await connections.holdAtLeast(FIRST);
    const withFirst = await resident(`${FIRST} connections`);
    const all = FIRST + MORE;
    await connections.holdAtLeast(all);
    const withAll = await resident(`${all} connections`);
    const each = (withAll - withFirst) / (all - FIRST);

    connections.close();
    const openAtMost = openWhenIdle + SPARE_DESCRIPTORS + 2 * Math.ceil(all / STREAMS_PER_TUNNEL);
    for (const end = Date.now() + CLOSE_TIMEOUT_MS; descriptors(pid) > openAtMost; await delay(100)) {
      if (Date.now() > end)
        throw new Error(`the agent still has ${descriptors(pid)} descriptors, ${openWhenIdle} when idle`);
    }
    const after = await resident('closed');
    return [
      figure('idle, 3 pods, 1 worker', 'resident', idle / MEGABYTE, megabytes(idle), { atMost: 90 }),
      figure(
        'per idle connection',
        `${FIRST} connections ${megabytes(withFirst)}, ${all} connections ${megabytes(withAll)}`,
        each / 1024,
        `${(each / 1024).toFixed(2)} KB`,
        { atMost: 4 },
      ),
      figure('after they closed', megabytes(after), after / idle, `${(after / idle).toFixed(2)} of idle`, {
        atMost: 1.2,
      }),
    ];
  } finally {
    connections.stop();
    await mesh.stop();
  }
};

function descriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function megabytes(bytes: number): string {
  return `${(bytes / MEGABYTE).toFixed(1)} MB`;
}

function figure(name: string, measured: string, value: number, printed: string, bound: Bound): Figure {
  return { what: `memory, ${name}`, measured, value, printed, bound };
}

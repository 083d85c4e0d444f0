/**
 * *pods*: enrolled pod → enrolled pod of one agent, through the real capture rules, as a fraction of the same load
 * between two plain pods on the same bridge. The two take turns in short slices.
 */
import type { Bench } from './harness/bench.ts';
import { type Bound, type Figure, gigabits, median, thousands } from './harness/figures.ts';
import { type Load, runLoad } from './harness/load.ts';
import { startMesh } from './harness/mesh.ts';
import { startOrigin } from './harness/origin.ts';
import { cpuSeconds } from './harness/processes.ts';

interface Row {
  readonly name: string;
  readonly load: Load;
  /** The fraction of the plain rate that is wanted (issue 3). */
  readonly fraction: number;
  /** CPU of the agent that is allowed: ms per 1000 requests, or seconds per GB. */
  readonly cpu: number | null;
}

const rows: readonly Row[] = [
  { name: '1 connection', load: { kind: 'requests', connections: 1 }, fraction: 0.68, cpu: null },
  { name: '16 connections', load: { kind: 'requests', connections: 16 }, fraction: 0.34, cpu: null },
  { name: '64 connections', load: { kind: 'requests', connections: 64 }, fraction: 0.44, cpu: 18 },
  { name: 'new connections', load: { kind: 'new-connections', connections: 16 }, fraction: 0.48, cpu: null },
  { name: 'one bulk stream', load: { kind: 'bulk' }, fraction: 0.46, cpu: 1.15 },
];

const HTTP_PORT = 8080;
const BULK_PORT = 5201;

export const pods: Bench = async ({ folder, quick, workers, progress }) => {
  const seconds = quick ? 1 : 4;
  const rounds = quick ? 1 : 3;
  const mesh = await startMesh({ enrolled: ['client', 'server'], plain: ['pclient', 'pserver'], workers });
  const stops = [() => mesh.stop()];
  try {
    const sides = [];
    for (const [client, server] of [mesh.plain, mesh.enrolled]) {
      if (client === undefined || server === undefined) throw new Error('a pod is missing');
      const origin = await startOrigin(folder, {
        host: server.ipv4,
        httpPort: HTTP_PORT,
        bulkPort: BULK_PORT,
        netns: server.netns.fd,
      });
      stops.push(() => origin.stop());
      sides.push(async (load: Load) => {
        const port = load.kind === 'bulk' ? BULK_PORT : HTTP_PORT;
        const before = cpuSeconds([mesh.agent.pid]);
        const slice = await runLoad(load, { host: server.ipv4, port }, seconds, client.netns.fd);
        return { ...slice, cpu: cpuSeconds([mesh.agent.pid]) - before };
      });
    }
    const [plain, captured] = sides;
    if (plain === undefined || captured === undefined) throw new Error('a side is missing');
    // Compilers warm up, tunnels open, plans are made.
    await captured({ kind: 'requests', connections: 16 });

    const figures: Figure[] = [];
    for (const { name, load, fraction, cpu } of rows) {
      const describe = (rate: number) => (load.kind === 'bulk' ? gigabits(rate) : `${thousands(rate)}/s`);
      const plainRates: number[] = [];
      const rates: number[] = [];
      const costs: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const reference = await plain(load);
        const result = await captured(load);
        plainRates.push(reference.rate);
        rates.push(result.rate);
        costs.push(load.kind === 'bulk' ? (result.cpu * 1e9) / result.amount : (result.cpu * 1e6) / result.amount);
        progress(`pods, ${name}: plain ${describe(reference.rate)}, culvert ${describe(result.rate)}`);
      }
      const ratio = median(rates) / median(plainRates);
      figures.push(
        figure(
          name,
          `plain ${describe(median(plainRates))}, culvert ${describe(median(rates))}`,
          ratio,
          ratio.toFixed(2),
          {
            atLeast: fraction,
          },
        ),
      );
      const cost = median(costs);
      const unit = load.kind === 'bulk' ? 's per GB' : 'ms per 1000';
      figures.push(
        figure(name, 'CPU of the agent', cost, `${cost.toFixed(2)} ${unit}`, cpu === null ? null : { atMost: cpu }),
      );
    }
    return figures;
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
};

function figure(name: string, measured: string, value: number, printed: string, bound: Bound): Figure {
  return { what: `pods, ${name}`, measured, value, printed, bound };
}

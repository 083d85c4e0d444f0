/**
 * *relay*: plain TCP → mutual TLS 1.3 → plain TCP on loopback, two processes with one data-path thread each, culvert
 * against what one would use instead. All contenders run at the same time and take turns in short slices, so that what
 * else the machine does hits them alike.
 */

import type { Bench } from './harness/bench.ts';
import { makeCertificates } from './harness/certificates.ts';
import { type Figure, gigabits, median, thousands } from './harness/figures.ts';
import { type Load, runLoad, type Slice } from './harness/load.ts';
import { startOrigin } from './harness/origin.ts';
import { freePort } from './harness/ports.ts';
import { cpuSeconds } from './harness/processes.ts';

import type { Contender, RunningContender } from './relay/contender.ts';
import { culvert } from './relay/culvert.ts';
import { haproxy } from './relay/haproxy.ts';
import { nodeHttp2 } from './relay/node-http2.ts';

interface Row {
  readonly name: string;
  readonly load: Load;
  readonly showCpu: boolean;
  /** What culvert's rate must be, as a multiple of each contender's (issue 3). */
  readonly wanted: { readonly haproxy: number | null; readonly 'node:http2': number | null };
}

const rows: readonly Row[] = [
  {
    name: '16 connections',
    load: { kind: 'requests', connections: 16 },
    showCpu: false,
    wanted: { haproxy: 1.25, 'node:http2': null },
  },
  {
    name: '64 connections',
    load: { kind: 'requests', connections: 64 },
    showCpu: true,
    wanted: { haproxy: 1.5, 'node:http2': 1.8 },
  },
  {
    name: 'new connections',
    load: { kind: 'new-connections', connections: 16 },
    showCpu: false,
    wanted: { haproxy: 5.5, 'node:http2': null },
  },
  { name: 'one bulk stream', load: { kind: 'bulk' }, showCpu: true, wanted: { haproxy: 1.5, 'node:http2': null } },
];

const contenders: readonly Contender[] = [culvert, haproxy, nodeHttp2];

interface Measured extends Slice {
  readonly nearCpu: number;
  readonly farCpu: number;
}

/** Runs the benchmark; `progress` is told each slice. */
export const relay: Bench = async ({ folder, quick, progress }) => {
  const seconds = quick ? 1 : 4;
  const rounds = quick ? 1 : 3;
  const certificates = await makeCertificates(folder);
  const origin = await startOrigin(folder, {
    host: '127.0.0.1',
    httpPort: await freePort(),
    bulkPort: await freePort(),
  });
  const stops = [() => origin.stop()];
  try {
    const started: { name: string; http: RunningContender; bulk: RunningContender }[] = [];
    for (const contender of contenders) {
      const start = async (originPort: number) => {
        const running = await contender.start({ folder, certificates, originPort });
        stops.push(() => running.stop());
        return running;
      };
      started.push({
        name: contender.name,
        http: await start(origin.httpPort),
        bulk: await start(origin.bulkPort),
      });
    }
    // Compilers warm up, tunnels open.
    for (const { http } of started) await slice(http, { kind: 'requests', connections: 16 }, quick ? 1 : 2);

    const figures: Figure[] = [];
    for (const row of rows) {
      const results = new Map<string, Measured[]>(started.map(({ name }) => [name, []]));
      for (let round = 0; round < rounds; round++) {
        for (const { name, http, bulk } of started) {
          const result = await slice(row.load.kind === 'bulk' ? bulk : http, row.load, seconds);
          progress(`relay, ${row.name}: ${name} ${describe(row.load, result.rate)}`);
          results.get(name)?.push(result);
        }
      }
      figures.push(...compare(row, results));
    }
    return figures;
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
};

async function slice(contender: RunningContender, load: Load, seconds: number): Promise<Measured> {
  const before = [cpuSeconds(contender.nearPids), cpuSeconds(contender.farPids)] as const;
  const result = await runLoad(load, { host: '127.0.0.1', port: contender.port }, seconds);
  return {
    ...result,
    nearCpu: cpuSeconds(contender.nearPids) - before[0],
    farCpu: cpuSeconds(contender.farPids) - before[1],
  };
}

function compare(row: Row, results: ReadonlyMap<string, readonly Measured[]>): Figure[] {
  const of = (name: string, value: (slice: Measured) => number) => median((results.get(name) ?? []).map(value));
  const rate = (name: string) => of(name, (slice) => slice.rate);
  const summary = (name: string) => `${name} ${describe(row.load, rate(name))}`;
  const figures: Figure[] = (['haproxy', 'node:http2'] as const).map((other) => {
    const ratio = rate('culvert') / rate(other);
    const wanted = row.wanted[other];
    return {
      what: `relay, ${row.name}`,
      measured: `${summary('culvert')}, ${summary(other)}`,
      value: ratio,
      printed: `${ratio.toFixed(2)}×`,
      bound: wanted === null ? null : { atLeast: wanted },
    };
  });
  if (!row.showCpu) return figures;
  for (const name of ['culvert', 'haproxy', 'node:http2']) {
    const per = row.load.kind === 'bulk' ? 1e9 : 1000;
    const cost = (cpu: (slice: Measured) => number) => of(name, (slice) => (cpu(slice) * per) / slice.amount);
    const both = cost(({ nearCpu, farCpu }) => nearCpu + farCpu);
    const unit = row.load.kind === 'bulk' ? 's per GB' : 'ms per 1000';
    const scale = row.load.kind === 'bulk' ? 1 : 1000;
    const near = cost(({ nearCpu }) => nearCpu) * scale;
    const far = cost(({ farCpu }) => farCpu) * scale;
    const p99 = of(name, (slice) => slice.p99 ?? 0);
    figures.push({
      what: `relay, ${row.name}`,
      measured: `${name}: near ${near.toFixed(2)}, far ${far.toFixed(2)}${p99 > 0 ? `; p99 ${p99.toFixed(1)} ms` : ''}`,
      value: both * scale,
      printed: `CPU ${(both * scale).toFixed(2)} ${unit}`,
      bound: null,
    });
  }
  return figures;
}

function describe(load: Load, rate: number): string {
  return load.kind === 'bulk' ? gigabits(rate) : `${thousands(rate)}/s`;
}

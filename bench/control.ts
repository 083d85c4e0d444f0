/**
 * *control*: how soon a control plane of its own serves a mesh after its start, how soon a change is with every agent, and
 * what a very large mesh takes.
 */
import { type ChildProcess, execFile, fork } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Order, Report } from './control/protocol.ts';
import type { Bench } from './harness/bench.ts';
import { type Bound, type Figure, median } from './harness/figures.ts';

const AGENTS = 500;
const PATIENCE_MS = 120_000;
/** As in bin/culvert. */
const FLAGS = ['--max-semi-space-size=1'];

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export const control: Bench = async ({ folder, quick, progress }) => [
  ...(await ofUsualSize(folder, quick, progress)),
  ...(await ofLargeSize(folder, quick ? 20_000 : 200_000, progress)),
];

async function ofUsualSize(folder: string, quick: boolean, progress: (line: string) => void): Promise<Figure[]> {
  const [pods, services] = [10_000, 1000];
  const { server, port, root } = await startServer(folder, pods, services);
  try {
    const first = await takeAll(port, root);
    const startMs = server.sinceStartMs + first.ms;
    const { residentMb, longestTurnMs } = await server.report();
    progress(`control, start to first full push ${startMs.toFixed(0)} ms, ${residentMb} MB`);

    const agents = startChild('control/agents.ts', [port, root, AGENTS]);
    try {
      const { bytes } = await agents.next('synced');
      const joined = await server.report();
      progress(`control, ${AGENTS} agents joined: ${(bytes / 1e6).toFixed(0)} MB, ${joined.cpuMs.toFixed(0)} ms CPU`);
      const delays: number[] = [];
      const cpu: number[] = [];
      for (let round = 0; round < (quick ? 3 : 20); round++) {
        await server.report();
        server.order('change');
        const [{ at: changedAt }, { at }] = await Promise.all([server.next('changed'), agents.next('received')]);
        delays.push(...at.map((time) => time - changedAt));
        await delay(200);
        cpu.push((await server.report()).cpuMs);
      }
      delays.sort((a, b) => a - b);
      const p99 = delays[Math.floor(delays.length * 0.99)]!;
      const cores = median(cpu) / p99;
      const { residentMb: withAgents } = await server.report();
      progress(`control, a change: median ${median(delays).toFixed(0)} ms, p99 ${p99.toFixed(0)} ms`);
      const mesh = `${pods} pods in ${services} services`;
      const change = `one pod changes, ${AGENTS} agents`;
      return [
        figure(mesh, 'start to first full push', startMs / 1000, `${(startMs / 1000).toFixed(2)} s`, { atMost: 5 }),
        figure(
          mesh,
          `one agent ${residentMb} MB, longest turn ${longestTurnMs.toFixed(0)} ms of CPU`,
          withAgents,
          `${AGENTS} agents ${withAgents} MB`,
          { atMost: 250 },
        ),
        figure(change, `median ${median(delays).toFixed(0)} ms`, p99, `p99 ${p99.toFixed(0)} ms`, { atMost: 500 }),
        figure(change, `${median(cpu).toFixed(0)} ms CPU of the control plane`, cores, `${cores.toFixed(2)} cores`, {
          atMost: 1,
        }),
      ];
    } finally {
      agents.stop();
    }
  } finally {
    server.stop();
  }
}

async function ofLargeSize(folder: string, pods: number, progress: (line: string) => void): Promise<Figure[]> {
  const { server, port, root } = await startServer(folder, pods, pods / 20);
  try {
    const before = await server.report();
    const { ms } = await takeAll(port, root);
    const { residentMb, peakMb, longestTurnMs } = await server.report();
    progress(`control, ${pods} pods: ready ${server.sinceStartMs.toFixed(0)} ms, one agent ${ms.toFixed(0)} ms`);
    const mesh = `${pods} pods in ${pods / 20} services`;
    return [
      figure(mesh, `held ${before.residentMb} MB, sent to one agent`, peakMb, `${Math.max(peakMb, residentMb)} MB`, {
        atMost: 1024,
      }),
      figure(mesh, 'connected to in step', ms / 1000, `${(ms / 1000).toFixed(2)} s`, { atMost: 8 }),
      figure(mesh, 'longest turn', longestTurnMs, `${longestTurnMs.toFixed(0)} ms of CPU`, { atMost: 50 }),
    ];
  } finally {
    server.stop();
  }
}

/** Culvert's own client takes everything; resolves with how long that took, from the start of its connection. */
async function takeAll(port: number, root: string): Promise<{ ms: number }> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...FLAGS,
    script('xds/consumer.ts'),
    `https://localhost:${port}`,
    root,
  ]);
  return { ms: (JSON.parse(stdout) as { syncedMs: number }).syncedMs };
}

async function startServer(folder: string, pods: number, services: number) {
  const root = join(folder, `control-root-${pods}.pem`);
  const child = startChild('control/server.ts', [pods, services, root]);
  const { port, sinceStartMs } = await child.next('serving');
  const order = (what: Order) => void child.process.send(what);
  const server = {
    ...child,
    sinceStartMs,
    order,
    report() {
      order('report');
      return child.next('report');
    },
  };
  return { server, port, root };
}

interface Child {
  readonly process: ChildProcess;
  /** The next report of a kind. Rejects when the process ends. */
  next<Kind extends Report['kind']>(kind: Kind): Promise<Extract<Report, { kind: Kind }>>;
  stop(): void;
}

/** It ends with this process, at the latest. */
function startChild(name: string, argv: readonly (string | number)[]): Child {
  const child = fork(script(name), argv.map(String), { execArgv: FLAGS });
  return {
    process: child,
    next: (kind) =>
      new Promise((resolve, reject) => {
        const failed = (why: string) => {
          end();
          reject(new Error(`${name} ${why} instead of ${kind}`));
        };
        const timer = setTimeout(failed, PATIENCE_MS, 'said nothing');
        const exited = (code: number | null) => failed(`ended with ${code}`);
        const said = (report: Report) => {
          if (report.kind !== kind) return;
          end();
          resolve(report as Extract<Report, { kind: typeof kind }>);
        };
        const end = () => {
          clearTimeout(timer);
          child.off('message', said).off('exit', exited);
        };
        child.on('message', said).on('exit', exited);
      }),
    stop: () => void child.kill('SIGKILL'),
  };
}

function figure(name: string, measured: string, value: number, printed: string, bound: Bound): Figure {
  return { what: `control, ${name}`, measured, value, printed, bound };
}

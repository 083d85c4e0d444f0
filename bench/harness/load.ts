import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import { runChecked } from '../../src/netns/run.ts';

/** What a generator may need beyond its slice before it counts as hung. */
const PATIENCE_MS = 10_000;
const BUSY_ATTEMPTS = 6;

/** A load that a stock generator makes. `seconds` is the length of one slice. */
export type Load =
  | { kind: 'requests'; connections: number }
  | { kind: 'new-connections'; connections: number }
  | { kind: 'bulk' };

/** What one slice showed. */
export interface Slice {
  /** Requests, or connections, per second; for bulk bytes per second. */
  rate: number;
  /** How many requests, connections or bytes the slice carried. */
  amount: number;
  /** 99th percentile of the response time in ms; null for bulk. */
  p99: number | null;
}

export interface Target {
  readonly host: string;
  readonly port: number;
}

/**
 * Runs one slice of a load against an address, from inside the namespace with that descriptor (null: this one's).
 * Throws when the generator saw errors, so that no figure hides them.
 */
export async function runLoad(
  load: Load,
  target: Target,
  seconds: number,
  netns: number | null = null,
): Promise<Slice> {
  return load.kind === 'bulk' ? iperf(target, seconds, netns) : wrk(load, target, seconds, netns);
}

async function wrk(
  load: { kind: 'requests' | 'new-connections'; connections: number },
  { host, port }: Target,
  seconds: number,
  netns: number | null,
): Promise<Slice> {
  const authority = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const close = load.kind === 'new-connections' ? ['-H', 'Connection: close'] : [];
  const command = [
    'wrk',
    '-t1',
    `-c${load.connections}`,
    `-d${seconds}s`,
    '--latency',
    ...close,
    `http://${authority}/`,
  ];
  const output = await run(command, seconds, netns);
  const failure = /Socket errors:.*|Non-2xx.*/.exec(output)?.[0];
  if (failure !== undefined) throw new Error(`${command.join(' ')}: ${failure}`);
  return {
    rate: number(output, /Requests\/sec:\s+([\d.]+)/),
    amount: number(output, /(\d+) requests in/),
    p99: milliseconds(output, /^\s+99%\s+([\d.]+)(us|ms|s)/m),
  };
}

async function iperf(target: Target, seconds: number, netns: number | null): Promise<Slice> {
  const command = ['iperf3', '-c', target.host, '-p', String(target.port), '-t', String(seconds), '-J'];
  for (let attempt = 1; ; attempt++) {
    try {
      const { bytes, bits_per_second } = JSON.parse(await run(command, seconds, netns)).end.sum_received;
      return { rate: bits_per_second / 8, amount: bytes, p99: null };
    } catch (error) {
      // The server serves one test at a time and may still be busy with the end of the one before.
      if (attempt === BUSY_ATTEMPTS || !/busy|control (message|socket)/.test(messageOf(error))) throw error;
      await delay(500);
    }
  }
}

function run(argv: readonly string[], seconds: number, netns: number | null): Promise<string> {
  return runChecked(argv, { netns, timeoutMs: seconds * 1000 + PATIENCE_MS });
}

function number(text: string, pattern: RegExp): number {
  const value = pattern.exec(text)?.[1];
  if (value === undefined) throw new Error(`no ${pattern} in the load generator's output:\n${text}`);
  return Number(value);
}

function milliseconds(text: string, pattern: RegExp): number {
  const [, value, unit] = pattern.exec(text) ?? [];
  return Number(value) * (unit === 's' ? 1000 : unit === 'us' ? 0.001 : 1);
}

import { runProcess } from './processes.ts';

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

/** A program and arguments in front of the generator, such as `ip netns exec <name>`; empty for this namespace. */
export type Prefix = readonly string[];

/** Runs one slice of a load against an address. Throws when the generator saw errors, so that no figure hides them. */
export async function runLoad(
  load: Load,
  target: { host: string; port: number },
  seconds: number,
  prefix: Prefix = [],
): Promise<Slice> {
  return load.kind === 'bulk' ? iperf(target, seconds, prefix) : wrk(load, target, seconds, prefix);
}

async function wrk(
  load: { kind: 'requests' | 'new-connections'; connections: number },
  { host, port }: { host: string; port: number },
  seconds: number,
  prefix: Prefix,
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
  const output = await run([...prefix, ...command]);
  const failure = /Socket errors:.*|Non-2xx.*/.exec(output)?.[0];
  if (failure !== undefined) throw new Error(`${command.join(' ')}: ${failure}`);
  return {
    rate: number(output, /Requests\/sec:\s+([\d.]+)/),
    amount: number(output, /(\d+) requests in/),
    p99: milliseconds(output, /^\s+99%\s+([\d.]+)(us|ms|s)/m),
  };
}

async function iperf(target: { host: string; port: number }, seconds: number, prefix: Prefix): Promise<Slice> {
  const output = await run([
    ...prefix,
    ...['iperf3', '-c', target.host, '-p', String(target.port), '-t', String(seconds), '-J'],
  ]);
  const received = JSON.parse(output).end.sum_received as { bytes: number; bits_per_second: number };
  return { rate: received.bits_per_second / 8, amount: received.bytes, p99: null };
}

function run([command, ...args]: string[]): Promise<string> {
  return runProcess(command ?? '', args);
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

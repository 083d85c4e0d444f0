import { readFileSync } from 'node:fs';
import { createOwnedProcesses, end } from '../../src/demo/processes.ts';

/** USER_HZ: the unit of the times in /proc/<pid>/stat on every Linux architecture that culvert runs on. */
const TICKS_PER_SECOND = 100;
const START_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 5_000;

export interface StartOptions {
  /** Descriptor of the network namespace to run in; this one's when left out. */
  readonly netns?: number;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** What tells that the program serves: a TCP port that it listens on, or a line that it prints. */
  readonly ready: { port: number } | { line: RegExp };
  /** How long that may take, in ms. */
  readonly timeout?: number;
}

export interface Running {
  readonly pid: number;
  /** Ends the program: SIGTERM, then SIGKILL after 5 s. Resolves when it is gone. */
  stop(): Promise<void>;
}

const processes = createOwnedProcesses();

/** Starts a program that ends with this one at the latest, and waits until it serves. */
export async function startProcess(argv: readonly string[], options: StartOptions): Promise<Running> {
  const child = processes.start(argv, { netns: options.netns ?? null, env: options.env ?? {} });
  const command = argv.join(' ');
  let output = '';
  const { promise: serves, resolve: serve, reject: fail } = Promise.withResolvers<void>();
  const read = (chunk: Buffer) => {
    // Only the beginning matters: readiness and start-up errors.
    if (output.length < 20_000) output += chunk.toString();
    if ('line' in options.ready && options.ready.line.test(output)) serve();
  };
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  child.once('error', fail);
  child.once('close', (code, signal) =>
    fail(new Error(`${command} ended (${code ?? signal}) before it served\n${output}`)),
  );
  const { timeout = START_TIMEOUT_MS } = options;
  const timer = setTimeout(
    () => fail(new Error(`${command} did not serve within ${timeout / 1000} s\n${output}`)),
    timeout,
  );
  const { ready } = options;
  const poll = 'port' in ready ? setInterval(() => isListening(child.pid, ready.port) && serve(), 20) : undefined;
  try {
    await serves;
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    clearTimeout(timer);
    clearInterval(poll);
  }
  return { pid: child.pid ?? 0, stop: () => end(child, STOP_TIMEOUT_MS) };
}

/** CPU seconds, user and system, that processes have used with all their threads so far. Resolution 10 ms. */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

/** Resident memory in bytes, shared library text included. */
export function residentBytes(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Rss:\s+(\d+) kB/m.exec(rollup)?.[1]) * 1024;
}

/** True when a TCP socket in the network namespace of process `pid` listens on `port`. Looks without connecting. */
function isListening(pid: number | undefined, port: number): boolean {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return ['tcp', 'tcp6'].some((table) =>
    socketTable(pid, table)
      .split('\n')
      .some((line) => {
        const [, local, , state] = line.trim().split(/\s+/);
        return state === '0A' && local?.endsWith(wanted);
      }),
  );
}

/** Empty when the process is gone or the kernel has no such protocol. */
function socketTable(pid: number | undefined, table: string): string {
  try {
    return readFileSync(`/proc/${pid}/net/${table}`, 'utf8');
  } catch {
    return '';
  }
}

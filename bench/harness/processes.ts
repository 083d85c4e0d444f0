import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

/** USER_HZ: the unit of the times in /proc/<pid>/stat on every Linux architecture that culvert runs on. */
const TICKS_PER_SECOND = 100;
const START_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 5_000;

export interface StartOptions {
  env?: NodeJS.ProcessEnv;
  /** What tells that the program serves: a TCP port that it listens on, or a line that it prints. */
  ready: { port: number } | { line: RegExp };
}

export interface Running {
  readonly pid: number;
  /** Ends the program: SIGTERM, then SIGKILL after 5 s. Resolves when it is gone. */
  stop(): Promise<void>;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a program and waits until it serves. Its output is shown when it fails. */
export async function startProcess(command: string, args: readonly string[], options: StartOptions): Promise<Running> {
  const child = spawn(command, args, { env: options.env ?? process.env, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  const exited = new Promise<void>((resolve) => {
    child.once('close', () => {
      running.delete(child);
      resolve();
    });
  });
  let output = '';
  const { promise: serves, resolve: serve, reject: fail } = Promise.withResolvers<void>();
  const read = (chunk: Buffer) => {
    // Only the beginning matters: readiness and start-up errors.
    if (output.length < 20_000) output += chunk.toString();
    if ('line' in options.ready && options.ready.line.test(output)) serve();
  };
  child.stdout.on('data', read);
  child.stderr.on('data', read);
  child.once('error', fail);
  child.once('close', (code, signal) =>
    fail(new Error(`${command} ended (${code ?? signal}) before it served\n${output}`)),
  );
  const timer = setTimeout(() => fail(new Error(`${command} did not serve within 15 s\n${output}`)), START_TIMEOUT_MS);
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
  return {
    pid: child.pid ?? 0,
    async stop() {
      child.kill('SIGTERM');
      const kill = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
      await exited;
      clearTimeout(kill);
    },
  };
}

/** Runs a program to its end and returns its standard output. */
export async function runProcess(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number | null];
  running.delete(child);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}\n${stderr}${stdout.slice(0, 2000)}`);
  return stdout;
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
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .some((line) => {
        const [, local, , state] = line.trim().split(/\s+/);
        return state === '0A' && local?.endsWith(wanted);
      }),
  );
}

import { type StdioOptions, spawn } from 'node:child_process';
import { CulvertError } from '../errors.ts';

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit status; null when a signal ended the command. */
  readonly status: number | null;
}

export interface CommandOptions {
  /** Written to standard input. */
  readonly input?: string;
  /** Milliseconds after which the command is killed. */
  readonly timeoutMs?: number;
  /** Descriptor of the network namespace to run in; null for the caller's own. */
  readonly netns?: number | null;
}

/**
 * Runs a command to its end, without a shell. Any exit status is a result.
 * @throws CulvertError 'COMMAND_MISSING' when there is no such program, 'COMMAND_TIMEOUT' when it had to be killed
 */
export function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { input = '', timeoutMs = DEFAULT_TIMEOUT_MS, netns = null } = options;
  const [program, ...args] = argvInNetns(argv, netns);
  return new Promise((resolve, reject) => {
    const child = spawn(program!, args, {
      stdio: stdioInNetns(['pipe', 'pipe', 'pipe'], netns),
      env: { ...process.env, PATH: toolPath() },
    });
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk;
    });
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk;
    });
    child.on('error', (cause) => {
      clearTimeout(timer);
      reject(new CulvertError('COMMAND_MISSING', `cannot run ${program}: ${cause.message}`, { cause }));
    });
    child.on('close', (status) => {
      clearTimeout(timer);
      if (timedOut) {
        reject(new CulvertError('COMMAND_TIMEOUT', `${argv.join(' ')} did not finish within ${timeoutMs} ms`));
      } else if (status === EXEC_FAILED && stderr.includes('failed to execute')) {
        reject(new CulvertError('COMMAND_MISSING', `cannot run ${argv[0]}: ${stderr.trim()}`));
      } else {
        resolve({ stdout, stderr, status });
      }
    });
    // A command that ends without reading its input breaks the pipe; its status says more than EPIPE would.
    child.stdin!.on('error', () => {});
    child.stdin!.end(input);
  });
}

/**
 * Runs a command that is expected to succeed and returns its standard output.
 * @throws CulvertError 'COMMAND_FAILED' with what the command wrote to standard error
 */
export async function runChecked(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { stdout, stderr, status } = await runCommand(argv, options);
  if (status !== 0) {
    const said = stderr.trim() || stdout.trim() || 'it said nothing';
    throw new CulvertError('COMMAND_FAILED', `${argv.join(' ')} failed (status ${status}): ${said}`);
  }
  return stdout;
}

/** The command line that runs `argv` inside the namespace which `stdioInNetns` passes along. */
export function argvInNetns(argv: readonly string[], netns: number | null): string[] {
  return netns === null ? [...argv] : ['nsenter', `--net=/proc/self/fd/${CHILD_NETNS_FD}`, '--', ...argv];
}

/** PATH with the folders of the administrator's programs, which an ordinary user's lacks. */
export function toolPath(): string {
  return [process.env.PATH ?? '/usr/bin:/bin', '/usr/sbin', '/sbin'].join(':');
}

/** Standard streams for `spawn`, followed by the namespace's descriptor where `argvInNetns` expects it. */
export function stdioInNetns(
  streams: ['pipe' | 'ignore', 'pipe' | 'ignore', 'pipe' | 'ignore'],
  netns: number | null,
): StdioOptions {
  return netns === null ? streams : [...streams, netns];
}

const DEFAULT_TIMEOUT_MS = 30_000;
const CHILD_NETNS_FD = 3;
/** What nsenter exits with when the program inside cannot be executed. */
const EXEC_FAILED = 127;

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { argvInNetns, stdioInNetns, toolPath } from '../netns/run.ts';

/** Processes that do not outlive this one: the kernel kills them when it ends, however it ends. */
export interface OwnedProcesses {
  /** Starts a program, in a namespace when one is given. Standard input is closed, the outputs are pipes. */
  start(argv: readonly string[], options?: StartOptions): ChildProcess;
  /** Ends all of them: SIGTERM, and SIGKILL for those that are still there after the grace period. */
  stop(graceMs?: number): Promise<void>;
}

export interface StartOptions {
  /** Descriptor of the network namespace; null for the caller's own. */
  readonly netns?: number | null;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export function createOwnedProcesses(): OwnedProcesses {
  const running = new Set<ChildProcess>();
  return {
    start(argv, { netns = null, env = {} } = {}) {
      const owned = ['--pdeathsig', 'KILL', '--', 'sh', '-c', UNLESS_ORPHANED, `${process.pid}`];
      const child = spawn('setpriv', [...owned, ...argvInNetns(argv, netns)], {
        stdio: stdioInNetns(['ignore', 'pipe', 'pipe'], netns),
        env: { ...process.env, PATH: toolPath(), ...env },
        // Ctrl-C is for the parent, which ends its children in order.
        detached: true,
      });
      running.add(child);
      child.on('exit', () => running.delete(child));
      child.on('error', () => running.delete(child));
      return child;
    },
    async stop(graceMs = 2000) {
      await Promise.all([...running].map((child) => end(child, graceMs)));
    },
  };
}

/** The kernel kills it from here on; when its parent died before that, there is somebody else in the parent's place. */
const UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"';

/** Ends one process and waits until it is gone. */
export async function end(child: ChildProcess, graceMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  await gone;
  clearTimeout(timer);
}

import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

/** The `culvert` command as a child process that ends with the test. */
export function runCulvert(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  maxDescriptors: number | null = null,
  /** What the command is to be run by. */
  by: readonly string[] = [],
): {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  output(): string;
  /** Calls back whenever there is more output. Returns what ends that. */
  watch(look: () => void): () => void;
} {
  const inherited = ['PATH', 'CULVERT_ADDON', 'NODE_OPTIONS'].flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  });
  const limited = maxDescriptors === null ? [] : ['prlimit', `--nofile=${maxDescriptors}:${maxDescriptors}`, '--'];
  const command = [...by, ...limited, process.execPath, cli, ...argv];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], {
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const watchers = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      for (const look of [...watchers]) look();
    });
  }
  const exited = new Promise<number | null>((resolve, reject) => {
    child.on('close', resolve);
    child.on('error', reject);
  });
  return {
    child,
    exited,
    output: () => output,
    watch(look) {
      watchers.add(look);
      return () => watchers.delete(look);
    },
  };
}

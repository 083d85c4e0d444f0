import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { scratchRoot } from '../../src/demo/run-tag.ts';

/** The demo as a user starts it. */
export interface DemoProcess {
  readonly child: ChildProcess;
  output(): string;
  /** Resolves when the output has that text; rejects when the demo ends without. */
  says(text: string): Promise<void>;
  /** Exit code, or 128 and the signal's number as a shell has it. */
  readonly ended: Promise<number>;
}

const culvert = fileURLToPath(new URL('../../bin/culvert', import.meta.url));

export function startDemo(args: readonly string[], options: { uid?: number; gid?: number } = {}): DemoProcess {
  const child = spawn(culvert, ['demo', ...args], { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      child.emit('output');
    });
  }
  const ended = once(child, 'close').then(([code, signal]) => code ?? (signal === 'SIGKILL' ? 137 : 128));
  return {
    child,
    output: () => output,
    async says(text) {
      const end = ended.then((code) => {
        throw new Error(`the demo ended (${code}) without saying ${JSON.stringify(text)}:\n${output}`);
      });
      end.catch(() => {});
      while (!output.includes(text)) await Promise.race([once(child, 'output'), end]);
    },
    ended,
  };
}

/** What a demo of that process id has left on the machine: namespaces, folders, processes. */
export function leftBy(pid: number): string[] {
  const tag = `culvert-${pid}-`;
  const names = (folder: string) => {
    try {
      return readdirSync(folder)
        .filter((name) => name.startsWith(tag))
        .map((name) => `${folder}/${name}`);
    } catch {
      return [];
    }
  };
  return [...names('/run/netns'), ...names(scratchRoot), ...processesMentioning(tag)];
}

/** Processes of that run know its folder: by their command line or, like the agent, by their environment. */
function processesMentioning(tag: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const text = readFileSync(`/proc/${pid}/cmdline`, 'utf8') + readFileSync(`/proc/${pid}/environ`, 'utf8');
      if (text.includes(tag)) found.push(`process ${pid}: ${text.slice(0, 80).replaceAll('\0', ' ')}`);
    } catch {
      // Gone meanwhile, or another user's.
    }
  }
  return found;
}

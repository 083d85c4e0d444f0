import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { CulvertError } from '../errors.ts';
import { type AccessLine, readAccessLine } from './access-log.ts';

/** The agent as a child process, seen through what it writes. */
export interface AgentProcess {
  /** Access log lines so far. */
  readonly access: readonly AccessLine[];
  /** Resolves when the predicate holds for the lines so far; false when it does not within the time. */
  until(holds: (access: readonly AccessLine[]) => boolean, patienceMs: number): Promise<boolean>;
  /** Rejects when the agent ends by itself, with the last of what it said. */
  readonly died: Promise<never>;
}

/** Reads the output of an agent. With `echo`, each line is passed on as well. */
export function observeAgent(child: ChildProcess, echo: ((line: string) => void) | null): AgentProcess {
  const access: AccessLine[] = [];
  const tail: string[] = [];
  const watchers = new Set<() => void>();
  const died = Promise.withResolvers<never>();
  // Whoever is not listening when it happens is not concerned.
  died.promise.catch(() => {});
  for (const stream of [child.stdout!, child.stderr!]) {
    createInterface({ input: stream }).on('line', (line) => {
      echo?.(line);
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
      const entry = readAccessLine(line);
      if (entry === null) return;
      access.push(entry);
      for (const look of watchers) look();
    });
  }
  child.on('error', (cause) =>
    died.reject(new CulvertError('AGENT_FAILED', `cannot start the agent: ${cause.message}`, { cause })),
  );
  child.on('close', (code, signal) =>
    died.reject(
      new CulvertError('AGENT_FAILED', `the agent ended (${signal ?? `status ${code}`}):\n${tail.join('\n')}`),
    ),
  );
  return {
    access,
    died: died.promise,
    until(holds, patienceMs) {
      return new Promise((resolve) => {
        const done = (result: boolean) => {
          watchers.delete(look);
          clearTimeout(timer);
          resolve(result);
        };
        const look = () => holds(access) && done(true);
        const timer = setTimeout(done, patienceMs, false);
        watchers.add(look);
        look();
      });
    },
  };
}

const TAIL_LINES = 20;

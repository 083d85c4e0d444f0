/**
 * Loaded before a program (`--import`), notes the long turns of its main loop in the file that BENCH_TURNS names.
 */
import { writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

export interface Turn {
  /** When it ended, Unix time in ms. */
  readonly at: number;
  /** ms that passed, and ms that the thread worked of it: they differ on a busy machine. */
  readonly passed: number;
  readonly worked: number;
}

const file = process.env.BENCH_TURNS;
/** What is shorter is not noted, in ms. */
const SHORT = 2;
const WRITE_MS = 250;

if (isMainThread && file !== undefined) {
  const turns: Turn[] = [];
  let written = 0;
  let last = { at: performance.now(), cpu: threadCpu() };
  writeFileSync(file, '[]');
  setInterval(() => {
    const now = { at: performance.now(), cpu: threadCpu() };
    // A tick is due after 1 ms.
    const passed = now.at - last.at - 1;
    if (passed > SHORT) turns.push({ at: Date.now(), passed, worked: now.cpu - last.cpu });
    last = now;
  }, 1).unref();
  setInterval(() => {
    if (turns.length === written) return;
    written = turns.length;
    writeFileSync(file, JSON.stringify(turns));
  }, WRITE_MS).unref();
}

function threadCpu(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

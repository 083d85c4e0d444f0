/**
 * Loaded before a program (`--import`), notes the long turns of its main loop, and at its end writes them to the file that
 * BENCH_TURNS names (Turns). Not before: on some file systems a file that replaces another one waits for the disk.
 */
import { writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

export interface Turns {
  /** Unix time in ms of the first and the last tick: all between them was measured. */
  readonly from: number;
  readonly until: number;
  /** How many there were. */
  readonly ticks: number;
  readonly long: readonly Turn[];
}

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

if (isMainThread && file !== undefined) {
  const from = Date.now();
  const long: Turn[] = [];
  let ticks = 0;
  let until = from;
  let last = { at: performance.now(), cpu: threadCpu() };
  setInterval(() => {
    const now = { at: performance.now(), cpu: threadCpu() };
    // A tick is due after 1 ms.
    const passed = now.at - last.at - 1;
    ticks++;
    until = Date.now();
    if (passed > SHORT) long.push({ at: until, passed, worked: now.cpu - last.cpu });
    last = now;
  }, 1).unref();
  process.on('exit', () => {
    const turns: Turns = { from, until, ticks, long };
    writeFileSync(file, JSON.stringify(turns));
  });
}

function threadCpu(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

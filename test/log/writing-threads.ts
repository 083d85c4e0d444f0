/**
 * Not a test: the process that writing tests look at. N threads each write `lines` numbered lines to stdout and end.
 * Usage: writing-threads.ts THREADS LINES LENGTH MAX_BACKLOG
 */
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { createLineWriter } from '../../src/log/line-writer.ts';

interface Order {
  name: string;
  lines: number;
  length: number;
  maxBacklogBytes: number;
}

if (isMainThread) {
  const [threads, lines, length, maxBacklogBytes] = process.argv.slice(2).map(Number) as [
    number,
    number,
    number,
    number,
  ];
  const order = { lines, length, maxBacklogBytes };
  for (let at = 1; at < threads; at++) {
    new Worker(new URL(import.meta.url), { workerData: { ...order, name: `t${at}` } satisfies Order });
  }
  writeLines({ ...order, name: 't0' });
} else {
  writeLines(workerData as Order);
}

function writeLines({ name, lines, length, maxBacklogBytes }: Order): void {
  const writer = createLineWriter({ maxBacklogBytes });
  let next = 0;
  function turn(): void {
    // Turns of different sizes, so that batches of every fill go out.
    for (const end = Math.min(lines, next + 1 + (next % 23)); next < end; next++) {
      writer.write(`${`${name} ${next} `.padEnd(length - (next % 50), 'x')}\n`);
    }
    if (next < lines) setImmediate(turn);
    // A thread that ends waits for its reader for a second only.
    else while (!writer.flush(1000));
  }
  turn();
}

/**
 * Not a test: a thread whose server sends what it was told to and ends, as soon as it accepts. The thread that connects
 * can sleep meanwhile, so that everything arrives as one event.
 */
import { createServer } from 'node:net';
import type { TestContext } from 'node:test';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { LOCAL } from './side.ts';

export interface QuickServer {
  readonly port: number;
  /** Blocks the calling thread until the next connection was served. */
  waitForServed(): void;
}

/** Ends with the test. */
export async function quickServer(t: TestContext, answer: string): Promise<QuickServer> {
  const served = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL(import.meta.url), { workerData: { answer, served } });
  t.after(() => worker.terminate());
  const port = await new Promise<number>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  let seen = 0;
  return {
    port,
    waitForServed() {
      Atomics.wait(served, 0, seen++);
    },
  };
}

if (parentPort !== null) {
  const { answer, served } = workerData as { answer: string; served: Int32Array };
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.end(answer, () => {
      Atomics.add(served, 0, 1);
      Atomics.notify(served, 0);
    });
  });
  server.listen(0, LOCAL, () => parentPort!.postMessage((server.address() as { port: number }).port));
}

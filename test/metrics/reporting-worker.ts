/**
 * Not a test: a worker thread with metrics, for tests of the hub. Says once that it has started, then opens and closes
 * connections as it is told.
 */
import { parentPort, threadId } from 'node:worker_threads';
import { SOCKETS_OPEN, TUNNEL_HANDSHAKES } from '../../src/metrics/families.ts';
import { createThreadMetrics, transferListOf } from '../../src/metrics/thread-metrics.ts';
import { trafficLabels, workload } from './labels.ts';

export type Order =
  | { kind: 'open'; to: string; bytes: number }
  | { kind: 'close' }
  | { kind: 'report' }
  | { kind: 'stall'; ms: number }
  /** Stands still until there is something else than 0. */
  | { kind: 'wait'; gate: Int32Array<SharedArrayBuffer> }
  /** Wakes who waits there. */
  | { kind: 'tell'; gate: Int32Array<SharedArrayBuffer> };

const port = parentPort!;
const metrics = createThreadMetrics(`worker-${threadId}`);
const sockets = metrics.slot(SOCKETS_OPEN, 'source');
const handshakes = metrics.slot(TUNNEL_HANDSHAKES, 'client', 'ok');
const open: number[] = [];

port.on('message', (order: Order) => {
  switch (order.kind) {
    case 'open': {
      const handle = metrics.traffic.open(trafficLabels({ destination: workload(order.to) }));
      metrics.traffic.received(handle, order.bytes);
      open.push(handle);
      metrics.add(sockets, 1);
      metrics.add(handshakes, 1);
      break;
    }
    case 'close':
      for (const handle of open.splice(0)) {
        metrics.traffic.close(handle, '-');
        metrics.add(sockets, -1);
      }
      break;
    case 'report': {
      const report = metrics.report();
      port.postMessage(report, transferListOf(report));
      break;
    }
    case 'stall': {
      const end = Date.now() + order.ms;
      while (Date.now() < end);
      break;
    }
    case 'wait':
      Atomics.wait(order.gate, 0, 0);
      break;
    case 'tell':
      Atomics.store(order.gate, 0, 1);
      Atomics.notify(order.gate, 0);
  }
});
port.postMessage('started');

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import {
  createMetricsHub,
  type MetricsHub,
  type MetricsHubOptions,
  type ReportingThread,
} from '../../src/metrics/hub.ts';
import { createRegistry } from '../../src/metrics/registry.ts';
import type { ThreadReport } from '../../src/metrics/thread-metrics.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import type { Order } from './reporting-worker.ts';

interface TestWorker extends ReportingThread {
  order(order: Order): void;
  stop(): Promise<unknown>;
}

/** A thread that has started. */
async function startWorker(context: TestContext, name: string): Promise<TestWorker> {
  const worker = new Worker(new URL('reporting-worker.ts', import.meta.url));
  context.after(() => worker.terminate());
  const order = (message: Order) => worker.postMessage(message);
  await once(worker, 'message');
  return {
    name,
    order,
    async report() {
      order({ kind: 'report' });
      const [report] = (await once(worker, 'message')) as [ThreadReport];
      return report;
    },
    stop: () => worker.terminate(),
  };
}

/** A hub that waits for every report, unless told otherwise. */
function start(
  context: TestContext,
  threads: readonly TestWorker[],
  more: Partial<MetricsHubOptions> = {},
): MetricsHub {
  const failures: string[] = [];
  context.after(() => assert.deepEqual(failures, []));
  const onError = (thread: string, error: unknown) => failures.push(`${thread}: ${error}`);
  const registry = createRegistry();
  return createMetricsHub({ registry, threads: () => threads, onError, reportMs: PATIENCE_MS, ...more });
}

/** The value of the sample whose line begins with the name and holds the text; null when there is none. */
async function sampleOf(hub: MetricsHub, name: string, holding = ''): Promise<number | null> {
  const lines = [...(await hub.scrape())].join('').split('\n');
  const line = lines.find((candidate) => candidate.startsWith(name) && candidate.includes(holding));
  return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ')));
}

test('what several worker threads count is summed, however often it is scraped', async (context) => {
  const workers = [await startWorker(context, 'one'), await startWorker(context, 'two')];
  const hub = start(context, workers);
  for (const [at, worker] of workers.entries()) {
    worker.order({ kind: 'open', to: 'server', bytes: 10 + at });
    worker.order({ kind: 'open', to: `only-${at}`, bytes: 1 });
  }
  for (let scrape = 0; scrape < 3; scrape++) {
    assert.equal(await sampleOf(hub, 'istio_tcp_received_bytes_total', 'destination_workload="server"'), 21);
    assert.equal(await sampleOf(hub, 'istio_tcp_connections_opened_total', 'destination_workload="only-1"'), 1);
    assert.equal(await sampleOf(hub, 'istio_tcp_sockets_open', 'reporter="source"'), 4);
    assert.equal(await sampleOf(hub, 'culvert_tunnel_handshakes_total', 'result="ok"'), 4);
  }
  for (const worker of workers) worker.order({ kind: 'close' });
  assert.equal(await sampleOf(hub, 'istio_tcp_sockets_open', 'reporter="source"'), 0);
  assert.equal(await sampleOf(hub, 'istio_tcp_connections_closed_total', 'destination_workload="server"'), 2);
  workers[0]!.order({ kind: 'open', to: 'server', bytes: 100 });
  assert.equal(await sampleOf(hub, 'istio_tcp_received_bytes_total', 'destination_workload="server"'), 121);
});

test('a series is dropped when no connection uses it and nothing was counted for the idle time', async (context) => {
  let time = 0;
  const worker = await startWorker(context, 'one');
  const hub = start(context, [worker], { now: () => time, idleMs: 1000 });
  const opened = () => sampleOf(hub, 'istio_tcp_connections_opened_total', 'destination_workload="server"');
  worker.order({ kind: 'open', to: 'server', bytes: 1 });
  assert.equal(await opened(), 1);
  time += 5000;
  assert.equal(await opened(), 1, 'a connection uses it');
  worker.order({ kind: 'close' });
  assert.equal(await opened(), 1, 'it was just counted in');
  time += 999;
  assert.equal(await opened(), 1);
  time += 1;
  assert.equal(await opened(), null);
  assert.equal(await sampleOf(hub, 'culvert_metric_series_evicted_total'), 1);
  worker.order({ kind: 'open', to: 'server', bytes: 1 });
  assert.equal(await opened(), 1, 'it starts anew');
});

test('the counters of a thread that ended stay, its gauges and connections go', async (context) => {
  let time = 0;
  const threads = [await startWorker(context, 'one#1'), await startWorker(context, 'two#1')];
  const hub = start(context, threads, { idleMs: 1000, now: () => time });
  for (const worker of threads) worker.order({ kind: 'open', to: 'server', bytes: 7 });
  assert.equal(await sampleOf(hub, 'istio_tcp_sockets_open'), 2);
  const [dead] = threads.splice(0, 1);
  await dead!.stop();
  hub.forget('one#1');
  assert.equal(await sampleOf(hub, 'istio_tcp_sockets_open'), 1);
  assert.equal(await sampleOf(hub, 'istio_tcp_received_bytes_total', 'destination_workload="server"'), 14);
  threads[0]!.order({ kind: 'close' });
  await hub.refresh();
  time += 1000;
  assert.equal(await sampleOf(hub, 'istio_tcp_received_bytes_total'), null, 'the dead thread keeps no series alive');
  assert.equal(await sampleOf(hub, 'culvert_tunnel_handshakes_total'), 2);
});

test('a scrape does not wait for a thread that does not answer, and its report counts when it comes', async (context) => {
  const [fast, slow] = [await startWorker(context, 'fast'), await startWorker(context, 'slow')];
  const hub = start(context, [fast, slow], { reportMs: 100 });
  const gate = new Int32Array(new SharedArrayBuffer(4));
  fast.order({ kind: 'open', to: 'server', bytes: 1 });
  slow.order({ kind: 'open', to: 'server', bytes: 1000 });
  slow.order({ kind: 'wait', gate });
  const received = () => sampleOf(hub, 'istio_tcp_received_bytes_total');
  let first: number | null = null;
  while (first === null) first = await received();
  assert.equal(first, 1);
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  let last: number | null = first;
  while (last === 1) last = await received();
  assert.equal(last, 1001);
});

test('a report that has come counts, however late the loop of the scrape gets to it', async (context) => {
  const worker = await startWorker(context, 'one');
  const hub = start(context, [worker], { reportMs: 50 });
  worker.order({ kind: 'open', to: 'server', bytes: 1 });
  // At the end of a turn: timers come next.
  await turn();
  const scrape = sampleOf(hub, 'istio_tcp_received_bytes_total');
  const reported = new Int32Array(new SharedArrayBuffer(4));
  worker.order({ kind: 'tell', gate: reported });
  Atomics.wait(reported, 0, 0);
  const end = performance.now() + 60;
  while (performance.now() < end);
  assert.equal(await scrape, 1);
});

test('a thread that fails to report is named, and the others are scraped', async (context) => {
  const failures: string[] = [];
  const worker = await startWorker(context, 'good');
  const bad: TestWorker = { ...worker, name: 'bad', report: () => Promise.reject(new Error('gone')) };
  const hub = start(context, [bad, worker], { onError: (thread, error) => failures.push(`${thread}: ${error}`) });
  worker.order({ kind: 'open', to: 'server', bytes: 1 });
  assert.equal(await sampleOf(hub, 'istio_tcp_connections_opened_total'), 1);
  assert.deepEqual(failures, ['bad: Error: gone']);
});

test('a report that arrives after its thread was forgotten is ignored', async (context) => {
  const worker = await startWorker(context, 'one');
  const hub = start(context, [worker]);
  worker.order({ kind: 'open', to: 'server', bytes: 1 });
  const scrape = hub.scrape();
  hub.forget('one');
  assert.doesNotMatch([...(await scrape)].join(''), /istio_tcp/);
});

test('a busy loop shows in the lag of its thread', async (context) => {
  const worker = await startWorker(context, 'one');
  const hub = start(context, [worker]);
  await hub.refresh();
  worker.order({ kind: 'stall', ms: 400 });
  const max = (await sampleOf(hub, 'culvert_event_loop_lag_seconds', 'statistic="max"'))!;
  assert.ok(max > 0.1 && max < 10, `${max}`);
});

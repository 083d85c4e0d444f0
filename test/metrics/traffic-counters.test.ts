import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  createTrafficCounters,
  OPENED,
  RECEIVED,
  SENT,
  TRAFFIC_STRIDE,
  type TrafficReport,
} from '../../src/metrics/traffic.ts';
import { trafficLabels, workload } from './labels.ts';

const to = (name: string) => trafficLabels({ destination: workload(name) });

function entryOf(report: TrafficReport, id: number) {
  const at = report.ids.indexOf(id);
  const value = (column: number) => report.values[at * TRAFFIC_STRIDE + column];
  return at < 0 ? null : { live: report.live[at], opened: value(OPENED), received: value(RECEIVED), sent: value(SENT) };
}

test('connections of the same labels share a handle, others do not', () => {
  const counters = createTrafficCounters();
  assert.equal(counters.open(to('a')), counters.open(to('a')));
  assert.notEqual(counters.open(to('a')), counters.open(to('b')));
  assert.notEqual(counters.open(to('a')), counters.open({ ...to('a'), reporter: 'destination' }));
});

test('a report holds what was counted since the one before, and defines each label set once', () => {
  const counters = createTrafficCounters();
  const handle = counters.open(to('a'));
  counters.received(handle, 10);
  counters.sent(handle, 20);
  const first = counters.report();
  assert.deepEqual(
    first.defined.map(([id]) => id),
    [handle],
  );
  assert.deepEqual(entryOf(first, handle), { live: 1, opened: 1, received: 10, sent: 20 });
  counters.received(handle, 5);
  const second = counters.report();
  assert.deepEqual(second.defined, []);
  assert.deepEqual(entryOf(second, handle), { live: 1, opened: 0, received: 5, sent: 0 });
});

test('a label set that no connection uses is reported once more and then forgotten', () => {
  const counters = createTrafficCounters();
  const handle = counters.open(to('a'));
  counters.close(handle, '-');
  assert.deepEqual(entryOf(counters.report(), handle), { live: 0, opened: 1, received: 0, sent: 0 });
  assert.equal(counters.report().ids.length, 0);
  const again = counters.open(to('b'));
  assert.equal(again, handle, 'its id is free');
  assert.deepEqual(entryOf(counters.report(), again), { live: 1, opened: 1, received: 0, sent: 0 });
});

test('counts survive growth', () => {
  const counters = createTrafficCounters();
  const handles = Array.from({ length: 1000 }, (_, at) => counters.open(to(`w${at}`)));
  for (const [at, handle] of handles.entries()) counters.received(handle, at);
  const report = counters.report();
  assert.equal(report.defined.length, 1000);
  for (const [at, handle] of handles.entries()) {
    assert.deepEqual(entryOf(report, handle), { live: 1, opened: 1, received: at, sent: 0 });
  }
});

test('connections that share their labels with no other keep nothing of them here', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const counters = createTrafficCounters();
  const name = 'n'.repeat(200);
  const held = Array.from({ length: 10_000 }, () =>
    trafficLabels({ source: workload('guest', { canonicalName: name, clusterId: name }), isShared: false }),
  );
  collect();
  const before = process.memoryUsage().heapUsed;
  for (const labels of held) counters.open(labels);
  collect();
  const each = (process.memoryUsage().heapUsed - before) / held.length;
  assert.ok(each < 100, `${each} bytes for each`);
});

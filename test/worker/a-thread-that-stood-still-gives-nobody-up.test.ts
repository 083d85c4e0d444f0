import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { TUNNEL_TIMEOUTS } from '../../src/metrics/families.ts';
import { Patience } from '../../src/patience.ts';
import { createRunningClock } from '../../src/running-clock.ts';
import { planeUnderTest, startPod, until } from './support/plane-under-test.ts';
import { count, hear, http2Peer } from './support/tunnel-peers.ts';

test('a clock for deadlines counts no more than a second of any pause', () => {
  let time = 5000;
  const now = createRunningClock(() => time);
  const read = (passed: number) => {
    time += passed;
    return now();
  };
  assert.deepEqual([0, 1, 500, 1000, 1001, 3_600_000, 1].map(read), [5000, 5001, 5501, 6501, 7501, 8501, 8502]);
});

test('a request that was under way while the thread stood still for a minute is answered', async (t) => {
  const rig = await planeUnderTest(t);
  const real = performance.now.bind(performance);
  let stoodStill = 0;
  t.mock.method(performance, 'now', () => real() + stoodStill);
  await http2Peer(t, rig, async (stream) => {
    stoodStill = 60_000;
    const { mock } = t.mock.method(rig.plane.deadlines.silence, 'tick');
    await until('the plane does not look at its deadlines', () => mock.callCount() >= 2);
    stream.respond({ ':status': 200 });
    stream.end('late');
  });
  startPod(rig);
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'late' });
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'), 0);
});

test('what has come while the thread stood still is heard, with what follows from it, before a wait is over', async (t) => {
  const { worker, standStill } = await sender(t);
  let isOver = false;
  const patience = new Patience(40, () => {
    isOver = true;
  });
  const heard = once(worker, 'message');
  setImmediate(standStill);
  await heard;
  // The answer may be in pieces, or one of several steps.
  for (let step = 0; step < 2; step++) await turn();
  patience.end();
  assert.equal(isOver, false);
});

for (const [when, looks, most] of [
  ['never', [10, 10, 10, 10], 4],
  ['in the last moment', [10, 10, 10, 60_000, 10], 5],
  ['all the time', [100, 100, 100, 100, 100, 100, 100, 100], 8],
] as const) {
  test(`a wait during which the thread stood still ${when} is over after ${most} looks`, (t) => {
    let now = 0;
    t.mock.timers.enable({ apis: ['setInterval', 'setImmediate'] });
    t.mock.method(performance, 'now', () => now);
    const over = t.mock.fn();
    new Patience(40, over);
    for (const [index, passed] of looks.entries()) {
      assert.equal(over.mock.callCount(), 0, `after ${index} looks`);
      now += passed;
      t.mock.timers.tick(10);
    }
    t.mock.timers.tick(1);
    assert.equal(over.mock.callCount(), 1);
  });
}

test('a wait that nothing ends is over', async () => {
  await new Promise<void>((resolve) => new Patience(20, resolve));
});

/** A thread that says something while this one stands still; timers that are due come right after what is called by setImmediate. */
async function sender(t: TestContext): Promise<{ worker: Worker; standStill: () => void }> {
  const said = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     parentPort.on('message', () => {
       parentPort.postMessage('said');
       Atomics.store(workerData, 0, 1);
       Atomics.notify(workerData, 0);
     });`,
    { eval: true, workerData: said },
  );
  t.after(() => worker.terminate());
  await once(worker, 'online');
  return {
    worker,
    standStill() {
      worker.postMessage('say it');
      Atomics.wait(said, 0, 0);
      // Any time that is longer than what waits.
      Atomics.wait(said, 0, 1, 500);
    },
  };
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import { WorkerSlot } from '../../src/worker/worker-slot.ts';

test('a thread that cannot start any more is started less and less often, and after a minute of work at once', (t) => {
  let now = 1000;
  t.mock.method(performance, 'now', () => now);
  const slot = new WorkerSlot(1);
  /** The delay after a thread that has worked for so long; null when it has not come to work. */
  function ended(workedMs: number | null): number {
    if (workedMs !== null) slot.attach({} as Worker);
    now += workedMs ?? 3_600_000;
    slot.detach();
    return slot.restartDelay();
  }
  assert.deepEqual([3_600_000, 10, null, null, null].map(ended), [50, 100, 200, 400, 800]);
  assert.deepEqual([null, null, null, null, 10].map(ended), [1600, 3200, 5000, 5000, 5000]);
  assert.deepEqual([60_001, null].map(ended), [50, 100]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { collectYoung } from '../../src/worker/memory-release.ts';
import { POD, planeUnderTest, SERVED, startPod } from './support/plane-under-test.ts';

test('a thread that is idle lets go of shared memory that it was told of and does not use any more', async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const told: WeakRef<object>[] = [];
  for (let edit = 0; edit < 3; edit++) {
    const words = new Int32Array(new SharedArrayBuffer(1024));
    told.push(new WeakRef(words));
    rig.plane.updatePod(POD.uid, {
      ...SERVED,
      policies: { ...SERVED.policies!, dryRunDeny: [{ words, text: new Uint16Array(new SharedArrayBuffer(2)) }] },
    });
    // Weak references are strong until the end of the turn.
    await turn();
  }
  await turn();
  collectYoung();
  assert.deepEqual(
    told.map((reference) => reference.deref() === undefined),
    [true, true, false],
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createAfterBurst } from '../../src/cni/memory.ts';
import { eventually } from './support/eventually.ts';

test('much work is collected once, when it is over', async (t) => {
  let collected = 0;
  const burst = createAfterBurst(() => collected++, 20);
  t.after(() => burst.close());
  for (let round = 1; round <= 2; round++) {
    for (let work = 0; work < 200; work++) burst.note();
    assert.equal(collected, round - 1, 'not while there is work');
    await eventually('collected', () => collected === round);
  }
  await delay(60);
  assert.equal(collected, 2);
});

test('little work is not worth it', async (t) => {
  let collected = 0;
  const burst = createAfterBurst(() => collected++, 10);
  t.after(() => burst.close());
  for (let work = 0; work < 10; work++) burst.note();
  await delay(60);
  assert.equal(collected, 0);
});

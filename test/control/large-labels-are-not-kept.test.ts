import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sharedData, sharedText } from '../../src/control/objects/shared.ts';

test('what many objects say is kept once', () => {
  assert.equal(sharedData({ app: 'web' }), sharedData({ app: 'web' }));
  assert.ok(Object.isFrozen(sharedData({ app: 'web' })));
});

test('large data is left to its object', () => {
  const large = () => ({ note: 'x'.repeat(3000) });
  assert.notEqual(sharedData(large()), sharedData(large()));
  assert.deepEqual(sharedData(large()), large());
  assert.ok(Object.isFrozen(sharedData(large())));
  assert.equal(sharedText('y'.repeat(3000)), 'y'.repeat(3000));
});

test('a pool is given up before it is large, however few its entries', () => {
  const first = sharedData({ app: 'first' });
  for (let n = 0; n < 5000; n++) sharedData({ note: `${n}${'x'.repeat(1900)}` });
  assert.notEqual(sharedData({ app: 'first' }), first);
});

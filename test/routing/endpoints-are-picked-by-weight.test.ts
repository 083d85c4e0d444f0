import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pickEndpoint } from '../../src/routing/pick.ts';
import type { PlannedEndpoint } from '../../src/routing/plan.ts';

function endpoint(uid: string, weight: number): PlannedEndpoint {
  return {
    uid,
    address: { ip: '10.0.0.1', port: 80 },
    weight,
    protocol: 'tcp',
    authority: '',
    expectedIdentities: [],
    inner: null,
    destination: null,
  };
}

const three = [endpoint('a', 1), endpoint('b', 2), endpoint('c', 1)];
const draws: readonly [random: number, uid: string][] = [
  [0, 'a'],
  [0.2499, 'a'],
  [0.25, 'b'],
  [0.7499, 'b'],
  [0.75, 'c'],
  [1 - Number.EPSILON / 2, 'c'],
];

for (const [random, uid] of draws) {
  test(`of weights 1, 2, 1 a draw of ${random} picks ${uid}`, () => {
    assert.equal(pickEndpoint(three, () => random).uid, uid);
  });
}

test('a single endpoint is picked without a draw', () => {
  assert.equal(pickEndpoint([endpoint('a', 0.1)], () => assert.fail('no draw is needed')).uid, 'a');
});

test('over evenly spread draws every endpoint gets its share', () => {
  const weights = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(weights, (given) => {
      const endpoints = given.map((weight, index) => endpoint(String(index), weight));
      const total = given.reduce((sum, weight) => sum + weight, 0);
      const hits = given.map(() => 0);
      for (let draw = 0; draw < total; draw++) {
        hits[Number(pickEndpoint(endpoints, () => (draw + 0.5) / total).uid)]!++;
      }
      assert.deepEqual(hits, given);
    }),
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import type { EndpointGroup } from '../../src/routing/plan.ts';

/** Endpoints of one weight, with addresses 10.0.0.0, 10.0.0.1 … in the order of their names. */
function group(weight: number, ...uids: string[]): EndpointGroup {
  return {
    protocol: 'tcp',
    port: 80,
    authority: null,
    tier: 0,
    weight,
    expectedIdentities: [],
    inner: null,
    hostname: '',
    destination: null,
    uids,
    names: new Map(),
    ips: uids.map((_, index) => `10.0.0.${index}`),
  };
}

const three = new EndpointSet([group(1, 'a'), group(2, 'b'), group(1, 'c')]);
const draws: readonly [draw: number, uid: string][] = [
  [0, 'a'],
  [0.2499, 'a'],
  [0.25, 'b'],
  [0.7499, 'b'],
  [0.75, 'c'],
  [1 - Number.EPSILON / 2, 'c'],
];

for (const [draw, uid] of draws) {
  test(`of weights 1, 2, 1 a draw of ${draw} picks ${uid}`, () => {
    assert.equal(three.at(three.indexAt(draw)).uid, uid);
  });
}

test('over evenly spread draws every endpoint gets its share', () => {
  const groups = fc.array(
    fc.record({ weight: fc.integer({ min: 1, max: 20 }), size: fc.integer({ min: 1, max: 5 }) }),
    {
      minLength: 1,
      maxLength: 8,
    },
  );
  fc.assert(
    fc.property(groups, (given) => {
      const set = new EndpointSet(given.map(({ weight, size }) => group(weight, ...Array(size).fill('x'))));
      const expected = given.flatMap(({ weight, size }) => Array(size).fill(weight));
      const total = expected.reduce((sum, weight) => sum + weight, 0);
      const hits = expected.map(() => 0);
      for (let draw = 0; draw < total; draw++) hits[set.indexAt((draw + 0.5) / total)]!++;
      assert.deepEqual(hits, expected);
    }),
  );
});

test('any draw picks an endpoint that exists', () => {
  const weight = fc.double({ min: 1e-9, max: 1e9, noNaN: true });
  const draw = fc.double({ min: 0, max: 1 - Number.EPSILON / 2, noNaN: true });
  fc.assert(
    fc.property(fc.array(weight, { minLength: 1, maxLength: 20 }), draw, (weights, at) => {
      const set = new EndpointSet(weights.map((each) => group(each, 'x', 'y', 'z')));
      const index = set.indexAt(at);
      assert.ok(index >= 0 && index < set.size, `${index} of ${set.size}`);
    }),
  );
});

test('the endpoints of a set are those of its groups in order, always the same objects', () => {
  const set = new EndpointSet([
    { ...group(1, 'a', 'b'), protocol: 'hbone', port: 15008, authority: { kind: 'own', port: 8080 } },
    { ...group(3, 'w'), protocol: 'hbone', port: 15008, authority: { kind: 'fixed', text: '10.9.9.9:80' } },
  ]);
  assert.deepEqual(
    [...set].map(({ uid, address, authority, weight, healthKey }) => [uid, address, authority, weight, healthKey]),
    [
      ['a', { ip: '10.0.0.0', port: 15008 }, '10.0.0.0:8080', 1, '10.0.0.0:8080'],
      ['b', { ip: '10.0.0.1', port: 15008 }, '10.0.0.1:8080', 1, '10.0.0.1:8080'],
      ['w', { ip: '10.0.0.0', port: 15008 }, '10.9.9.9:80', 3, '10.0.0.0:15008'],
    ],
  );
  assert.equal(set.at(1), set.at(1));
});

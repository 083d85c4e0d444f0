import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Balancer, type BalancerOptions } from '../../src/routing/balancer.ts';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import type { EndpointGroup } from '../../src/routing/plan.ts';

const SERVICE = 'default/web';

/** Endpoints 10.0.0.0, 10.0.0.1 … of a plain service; the weights of the first group, then of the next … */
function endpoints(count: number, weight = 1, first = 0): EndpointGroup {
  const numbers = Array.from({ length: count }, (_, index) => String(first + index));
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
    uids: numbers,
    names: new Map(),
    ips: numbers.map((number) => `10.0.0.${number}`),
  };
}

/** Draws that are spread evenly, the same in every run. */
function evenDraws(): () => number {
  let state = 1;
  return () => {
    state = (state * 48_271) % 0x7fff_ffff;
    return state / 0x7fff_ffff;
  };
}

function balancerUnderTest(changed: Partial<BalancerOptions> = {}) {
  const clock = { time: 1000 };
  const results: string[] = [];
  const balancer = new Balancer({
    ejectionTime: 1000,
    maxEjectionTime: 8000,
    maxEjectedPercent: 50,
    now: () => clock.time,
    random: evenDraws(),
    onFailure: (result) => results.push(result),
    ...changed,
  });
  const picks = (set: EndpointSet, count = 400): Set<string> =>
    new Set(Array.from({ length: count }, () => balancer.pick(set, null)!.uid));
  const fail = (set: EndpointSet, uid: number) => balancer.failed(SERVICE, set, set.at(uid), clock.time);
  return { balancer, clock, results, picks, fail };
}

test('an endpoint that failed is not picked until its time has passed', () => {
  const { clock, picks, fail, results } = balancerUnderTest({ random: () => 0.5 });
  const set = new EndpointSet([endpoints(2)]);
  fail(set, 1);
  assert.deepEqual(results, ['ejected']);
  assert.deepEqual(picks(set), new Set(['0']));
  clock.time += 999;
  assert.deepEqual(picks(set), new Set(['0']));
  clock.time += 2;
  assert.deepEqual(picks(set), new Set(['1']));
});

test('each further failure doubles the time, up to the longest', () => {
  const { balancer, clock, fail } = balancerUnderTest({ random: () => 0.5 });
  const set = new EndpointSet([endpoints(2)]);
  const times = [1, 2, 3, 4, 5, 6].map(() => {
    fail(set, 0);
    const { ejectedFor } = balancer.unhealthy()[0]!;
    clock.time += ejectedFor;
    return ejectedFor;
  });
  assert.deepEqual(times, [1000, 2000, 4000, 8000, 8000, 8000]);
});

test('the time varies by a quarter either way', () => {
  for (const [random, expected] of [
    [0, 750],
    [0.5, 1000],
    [1 - Number.EPSILON, 1250],
  ] as const) {
    const { balancer, fail } = balancerUnderTest({ random: () => random });
    fail(new EndpointSet([endpoints(2)]), 0);
    assert.equal(balancer.unhealthy()[0]!.ejectedFor, expected);
  }
});

test('a success forgives everything', () => {
  const { balancer, picks, fail } = balancerUnderTest();
  const set = new EndpointSet([endpoints(2)]);
  fail(set, 0);
  balancer.succeeded(set.at(0));
  assert.deepEqual(balancer.unhealthy(), []);
  assert.equal(picks(set).size, 2);
});

test('failures are remembered for a while also where nothing is left out', () => {
  const { balancer, clock, fail } = balancerUnderTest({ maxEjectedPercent: 0 });
  clock.time = 1_000_000;
  const set = new EndpointSet([endpoints(2)]);
  fail(set, 0);
  clock.time += 10_000;
  fail(set, 0);
  balancer.tick();
  assert.equal(balancer.unhealthy()[0]?.failures, 2);
  clock.time += 16_001;
  balancer.tick();
  assert.equal(balancer.size, 0);
});

test('attempts that began before the ejection do not lengthen it', () => {
  const { balancer, clock } = balancerUnderTest({ random: () => 0.5 });
  const set = new EndpointSet([endpoints(4)]);
  clock.time = 5000;
  for (let crowd = 0; crowd < 50; crowd++) balancer.failed(SERVICE, set, set.at(0), 4000 + crowd);
  assert.deepEqual(balancer.unhealthy(), [
    { endpoint: '10.0.0.0:80', uid: '0', connections: 0, failures: 1, ejectedFor: 1000 },
  ]);
});

const limits: readonly [size: number, percent: number, ejected: number][] = [
  [1, 50, 0],
  [1, 100, 0],
  [2, 50, 1],
  [2, 100, 1],
  [3, 50, 1],
  [10, 50, 5],
  [10, 30, 3],
  [10, 1, 1],
  [10, 100, 9],
  [10, 0, 0],
];
for (const [size, percent, expected] of limits) {
  test(`of ${size} endpoints that all fail ${expected} are left out at ${percent} percent`, () => {
    const { balancer, picks, fail, results } = balancerUnderTest({ maxEjectedPercent: percent });
    const set = new EndpointSet([endpoints(size)]);
    for (let index = 0; index < size; index++) fail(set, index);
    assert.equal(balancer.ejectedCount, expected);
    assert.equal(results.filter((result) => result === 'ejected').length, expected);
    assert.equal(picks(set).size, size - expected);
  });
}

test('of addresses without an alternative nothing is kept, however many fail', () => {
  const { balancer, clock, results } = balancerUnderTest();
  for (let port = 0; port < 1000; port++) {
    const set = new EndpointSet([endpoints(1, 1, port)]);
    balancer.failed(`10.1.0.${port}`, set, set.at(0), clock.time);
  }
  assert.equal(balancer.size, 0);
  assert.deepEqual(results, Array(1000).fill('spared'));
});

test('when all that are left have been tried there is none; what is ejected is tried before that', () => {
  const { balancer, fail } = balancerUnderTest();
  const set = new EndpointSet([endpoints(3)]);
  fail(set, 1);
  const tried = new Set<string>();
  const order: string[] = [];
  for (let endpoint = balancer.pick(set, tried); endpoint !== null; endpoint = balancer.pick(set, tried)) {
    order.push(endpoint.uid);
    tried.add(endpoint.healthKey);
  }
  assert.deepEqual(order.toSorted(), ['0', '1', '2']);
  assert.equal(order.at(-1), '1');
  assert.equal(balancer.pick(new EndpointSet([endpoints(1)]), new Set(['10.0.0.0:80'])), null);
});

test('of two drawn the less busy one is taken, by weight', () => {
  const { balancer } = balancerUnderTest();
  const set = new EndpointSet([endpoints(10)]);
  const held = Array.from({ length: 1000 }, () => {
    const endpoint = balancer.pick(set, null)!;
    balancer.joined(endpoint);
    return endpoint;
  });
  const counts = [...set].map((endpoint) => held.filter((other) => other === endpoint).length);
  // Drawn once each, they would differ by tens.
  assert.ok(Math.max(...counts) - Math.min(...counts) <= 10, counts.join(' '));
  // Connections that ended make room.
  for (const endpoint of held) if (endpoint.uid === '3') balancer.left(endpoint);
  const next = Array.from({ length: 200 }, () => balancer.pick(set, null)!.uid);
  assert.ok(next.filter((uid) => uid === '3').length > 30);
});

test('twice the weight holds twice the connections', () => {
  const { balancer } = balancerUnderTest();
  const set = new EndpointSet([endpoints(4, 1), endpoints(4, 2, 4)]);
  const counts = [0, 0];
  for (let i = 0; i < 1200; i++) {
    const endpoint = balancer.pick(set, null)!;
    balancer.joined(endpoint);
    counts[endpoint.weight - 1]!++;
  }
  assert.ok(Math.abs(counts[1]! / counts[0]! - 2) < 0.2, counts.join(' '));
});

test('whatever happens, a pick is of the set, at most the share is out, and nothing is kept of what is over', () => {
  const event = fc.oneof(
    fc.record({ kind: fc.constant('pick' as const) }),
    fc.record({ kind: fc.constant('fail' as const), index: fc.nat(9) }),
    fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(3000) }),
    fc.record({ kind: fc.constant('succeed' as const), index: fc.nat(9) }),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10 }),
      fc.integer({ min: 0, max: 100 }),
      fc.array(event),
      (size, percent, events) => {
        const { balancer, clock, fail } = balancerUnderTest({ maxEjectedPercent: percent });
        const set = new EndpointSet([endpoints(size)]);
        const live = [];
        for (const each of events) {
          if (each.kind === 'pick') {
            const endpoint = balancer.pick(set, null)!;
            balancer.joined(endpoint);
            live.push(endpoint);
          } else if (each.kind === 'fail') fail(set, each.index % size);
          else if (each.kind === 'succeed') balancer.succeeded(set.at(each.index % size));
          else clock.time += each.ms;
          assert.ok(balancer.ejectedCount <= Math.max(percent === 0 ? 0 : 1, Math.floor((size * percent) / 100)));
          assert.ok(balancer.ejectedCount < size);
        }
        for (const endpoint of live) balancer.left(endpoint);
        clock.time += 20_000;
        balancer.tick();
        assert.deepEqual(balancer.unhealthy(), []);
        assert.equal(balancer.size, 0);
      },
    ),
  );
});

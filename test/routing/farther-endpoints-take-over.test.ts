import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Balancer } from '../../src/routing/balancer.ts';
import { type EndpointSet, endpointsOf } from '../../src/routing/endpoint-set.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import type { LoadBalancer } from '../../src/state/types.ts';
import { byAddress, meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const KEY = 'default/web.default.svc.cluster.local';
const VIP = '10.96.0.1';
const client = workload('client', { network: 'n1', workloadIps: ['10.0.0.1'], locality: { region: 'r', zone: 'z1' } });

interface Place {
  readonly zone?: string;
  readonly network?: string;
  readonly hasGateway?: boolean;
}

function endpoints(mode: LoadBalancer['mode'], places: Readonly<Record<string, Place>>): EndpointSet {
  const mesh = meshOf({
    services: [
      service('web', {
        vips: [`n1/${VIP}`],
        loadBalancer: { mode, routingPreferences: ['Network', 'Region', 'Zone'], healthPolicy: 'OnlyHealthy' },
      }),
    ],
    workloads: [
      client,
      workload('gateway', { network: 'n1', workloadIps: ['10.0.9.9'] }),
      ...Object.entries(places).map(([name, { zone = 'z1', network = 'n1', hasGateway = false }], index) =>
        workload(name, {
          network,
          workloadIps: [`10.1.0.${index}`],
          locality: { region: 'r', zone },
          networkGateway: hasGateway
            ? { ...byAddress('10.0.9.9'), destination: { kind: 'address', network: 'n1', ip: '10.0.9.9' } }
            : null,
          services: { [KEY]: {} },
        }),
      ),
    ],
  });
  const plan = planOutbound(mesh, pod('client'), { ip: VIP, port: 80 }, 'n1', '10.0.0.1');
  assert.ok(plan.kind === 'forward', JSON.stringify(plan));
  return endpointsOf(plan);
}

function balancerUnderTest() {
  const clock = { time: 1000 };
  const balancer = new Balancer({
    ejectionTime: 1000,
    maxEjectionTime: 8000,
    maxEjectedPercent: 50,
    now: () => clock.time,
    random: Math.random,
    onFailure: () => {},
  });
  const picked = (set: EndpointSet) =>
    [...new Set(Array.from({ length: 200 }, () => nameOf(balancer.pick(set, null)!.uid)))].sort();
  const fail = (set: EndpointSet, name: string) =>
    balancer.failed(KEY, set, [...set].find(({ uid }) => nameOf(uid) === name)!, clock.time);
  return { balancer, clock, picked, fail };
}

const nameOf = (uid: string) => uid.slice(uid.lastIndexOf('/') + 1);

test('while a near endpoint can be used no farther one is', () => {
  const set = endpoints('Failover', {
    a: {},
    b: {},
    far: { zone: 'z2' },
    foreign: { network: 'n2', hasGateway: true },
  });
  const { picked, fail } = balancerUnderTest();
  assert.deepEqual(picked(set), ['a', 'b']);
  fail(set, 'a');
  assert.deepEqual(picked(set), ['b']);
});

test('when all near endpoints are left out the next nearest take over, and give back when the time has passed', () => {
  const set = endpoints('Failover', { a: {}, b: {}, far: { zone: 'z2' }, alsoFar: { zone: 'z3' } });
  const { clock, picked, fail } = balancerUnderTest();
  fail(set, 'a');
  fail(set, 'b');
  assert.deepEqual(picked(set), ['alsoFar', 'far']);
  clock.time += 10_000;
  assert.deepEqual(picked(set), ['a', 'b']);
});

test('the only near endpoint is left out when there are farther ones', () => {
  const set = endpoints('Failover', { a: {}, far: { zone: 'z2' } });
  const { picked, fail } = balancerUnderTest();
  fail(set, 'a');
  assert.deepEqual(picked(set), ['far']);
});

test('a connection that was not taken by any near endpoint goes on to a farther one', () => {
  const set = endpoints('Failover', { a: {}, b: {}, far: { zone: 'z2' } });
  const { balancer } = balancerUnderTest();
  const tried = new Set<string>();
  const order: string[] = [];
  for (let next = balancer.pick(set, tried); next !== null; next = balancer.pick(set, tried)) {
    order.push(nameOf(next.uid));
    tried.add(next.healthKey);
  }
  assert.deepEqual([order.slice(0, 2).sort(), order.slice(2)], [['a', 'b'], ['far']]);
});

/** So many endpoints in the zone of the client, and in the next one. */
function nearAndFar(near: number, far: number, mode: LoadBalancer['mode'] = 'Failover'): EndpointSet {
  const places: Record<string, Place> = {};
  for (let index = 0; index < near; index++) places[`near-${index}`] = {};
  for (let index = 0; index < far; index++) places[`far-${index}`] = { zone: 'z2' };
  return endpoints(mode, places);
}

const sizes: readonly [near: number, far: number][] = [
  [30, 10],
  [12, 4],
  [3, 1],
  [3, 3],
  [5, 20],
];
for (const [near, far] of sizes) {
  test(`all of ${near} near endpoints are left out when they fail, and at most half of ${far} far ones`, () => {
    const set = nearAndFar(near, far);
    const { balancer, picked, fail } = balancerUnderTest();
    for (let index = 0; index < near; index++) fail(set, `near-${index}`);
    assert.equal(balancer.ejectedCount, near);
    assert.ok(picked(set).every((name) => name.startsWith('far-')));
    for (let index = 0; index < far; index++) fail(set, `far-${index}`);
    const out = far === 1 ? 0 : Math.floor(far / 2);
    assert.equal(balancer.ejectedCount, near + out);
    assert.equal(picked(set).length, far - out);
  });
}

test('where nothing farther takes over at most half are left out', () => {
  for (const set of [nearAndFar(30, 10, 'Strict'), nearAndFar(20, 10, 'Standard')]) {
    assert.equal(set.size, 30);
    const { balancer, picked, fail } = balancerUnderTest();
    for (const { uid } of set) fail(set, nameOf(uid));
    assert.equal(balancer.ejectedCount, 15);
    assert.equal(picked(set).length, 15);
  }
});

test('a pick may begin with a farther tier, and goes on to what is farther still before it comes back', () => {
  const set = endpoints('Failover', {
    a: {},
    b: {},
    far: { zone: 'z2' },
    foreign: { network: 'n2', hasGateway: true },
  });
  const { balancer, fail } = balancerUnderTest();
  const order = (from: number) => {
    const tried = new Set<string>();
    const names: string[] = [];
    for (let next = balancer.pick(set, tried, from); next !== null; next = balancer.pick(set, tried, from)) {
      names.push(nameOf(next.uid));
      tried.add(next.healthKey);
    }
    return names;
  };
  assert.deepEqual(
    [...set].map((endpoint) => set.tierOf(endpoint)),
    [0, 0, 1, 2],
  );
  assert.deepEqual(order(1).slice(0, 2), ['far', 'foreign']);
  assert.deepEqual(order(2)[0], 'foreign');
  assert.deepEqual(order(1).slice(2).sort(), ['a', 'b']);
  fail(set, 'far');
  assert.deepEqual([order(1)[0], order(1).at(-1)], ['foreign', 'far']);
});

test('another network is the last resort, and reached through its gateway only', () => {
  const set = endpoints('Failover', {
    a: {},
    far: { zone: 'z2' },
    foreign: { network: 'n2', hasGateway: true },
    unreachable: { network: 'n2' },
  });
  assert.deepEqual(
    [...set].map(({ uid, inner }) => [nameOf(uid), inner !== null]),
    [
      ['a', false],
      ['far', false],
      ['foreign', true],
    ],
  );
});

test('strict preferences have no second choice', () => {
  const set = endpoints('Strict', { a: {}, b: {}, far: { zone: 'z2' }, foreign: { network: 'n2', hasGateway: true } });
  const { picked, fail } = balancerUnderTest();
  fail(set, 'a');
  fail(set, 'b');
  assert.deepEqual(
    [...set].map(({ uid }) => nameOf(uid)),
    ['a', 'b'],
  );
  assert.deepEqual(picked(set).length, 1);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Allocator, createAllocator, isSameForAllocation } from '../../src/control/mesh/allocation.ts';
import { DEFAULT_MESH_SETTINGS } from '../../src/control/mesh/settings.ts';
import type { AddressUpdate } from '../../src/control/mesh/statuses.ts';
import { SERVICE_ENTRIES, type ServiceEntry } from '../../src/control/objects/service-entry.ts';
import { meshUnderTest } from './support/mesh-under-test.ts';
import { serviceEntry } from './support/objects.ts';

type Json = Record<string, unknown>;

const entry = (name: string, second: number, more: Json = {}): ServiceEntry =>
  SERVICE_ENTRIES.read(
    serviceEntry(name, {
      ...more,
      metadata: { ...(more.metadata as Json), creationTimestamp: `2026-01-01T00:00:0${second}Z` },
    }),
  )!;
const status = (host: string, ...values: string[]) => ({
  status: { addresses: values.map((value) => ({ host, value })) },
});
const valuesOf = (updates: { key: string; addresses: readonly { host: string; value: string }[] }[]) =>
  Object.fromEntries(
    updates.map(({ key, addresses }) => [key, addresses.map(({ host, value }) => `${host} ${value}`)]),
  );
const decisionOf = (allocator: Allocator, entries: ServiceEntry[]): AddressUpdate[] => {
  const decision = allocator.decide(entries);
  for (;;) {
    const step = decision.next();
    if (step.done) return step.value;
  }
};
const decide = (...entries: ServiceEntry[]) => valuesOf(decisionOf(createAllocator(DEFAULT_MESH_SETTINGS), entries));

for (const [name, entries, wanted] of [
  [
    'each host one of each family, the older entry first',
    [entry('b', 2), entry('a', 1, { spec: { hosts: ['x.org', 'y.org'] } })],
    {
      'demo/a': ['x.org 240.240.0.1', 'x.org 2001:2::1', 'y.org 240.240.0.2', 'y.org 2001:2::2'],
      'demo/b': ['b.example.com 240.240.0.3', 'b.example.com 2001:2::3'],
    },
  ],
  ['nothing to who has all', [entry('a', 1, status('a.example.com', '240.240.0.9', '2001:2::9'))], {}],
  [
    'what is missing, after what is held',
    [entry('a', 1, status('a.example.com', '240.240.0.9')), entry('b', 2)],
    {
      'demo/a': ['a.example.com 240.240.0.9', 'a.example.com 2001:2::1'],
      'demo/b': ['b.example.com 240.240.0.10', 'b.example.com 2001:2::2'],
    },
  ],
  [
    'the older keeps what two hold',
    [
      entry('b', 2, status('b.example.com', '240.240.0.1', '2001:2::1')),
      entry('a', 1, status('a.example.com', '240.240.0.1', '2001:2::1')),
    ],
    { 'demo/b': ['b.example.com 240.240.0.2', 'b.example.com 2001:2::2'] },
  ],
  [
    'nobody gets what a user gave to an entry',
    [
      entry('a', 1, status('a.example.com', '240.240.0.1', '2001:2::1')),
      entry('b', 2, { spec: { addresses: ['240.240.0.1'] } }),
    ],
    { 'demo/a': ['a.example.com 240.240.0.2', 'a.example.com 2001:2::1'] },
  ],
  [
    'what is of no pool is replaced',
    [entry('a', 1, status('a.example.com', '10.0.0.1', 'x'))],
    { 'demo/a': ['a.example.com 240.240.0.1', 'a.example.com 2001:2::1'] },
  ],
  [
    'what hosts have that are no more is taken away',
    [entry('a', 1, { spec: { addresses: ['10.0.0.1'] }, ...status('a.example.com', '240.240.0.1') })],
    { 'demo/a': [] },
  ],
  ['nothing without resolution', [entry('a', 1, { spec: { resolution: 'NONE' } })], {}],
  [
    'nothing to who opted out',
    [entry('a', 1, { metadata: { labels: { 'networking.istio.io/enable-autoallocate-ip': 'false' } } })],
    {},
  ],
  ['nothing to wildcards', [entry('a', 1, { spec: { hosts: ['*.org'] } })], {}],
  [
    'wildcards that are resolved as they are asked for',
    [entry('a', 1, { spec: { hosts: ['*.org'], resolution: 'DYNAMIC_DNS' } })],
    { 'demo/a': ['*.org 240.240.0.1', '*.org 2001:2::1'] },
  ],
] as [string, ServiceEntry[], Json][]) {
  test(`allocation gives ${name}`, () => {
    assert.deepEqual(decide(...entries), wanted);
    assert.deepEqual(decide(...entries.toReversed()), wanted);
  });
}

test('an address that has become free is not given away at once', () => {
  const allocator = createAllocator(DEFAULT_MESH_SETTINGS);
  decisionOf(allocator, [entry('a', 1, status('a.example.com', '240.240.0.1', '2001:2::1'))]);
  assert.deepEqual(valuesOf(decisionOf(allocator, [entry('b', 2)])), {
    'demo/b': ['b.example.com 240.240.0.2', 'b.example.com 2001:2::2'],
  });
});

test('a block that is used up gives free addresses again, and then none', () => {
  const allocator = createAllocator({ allocateAddresses: true, ipv4Pool: '10.9.0.0/30', ipv6Pool: 'fd09::/126' });
  const held = entry('a', 1, status('a.example.com', '10.9.0.3', 'fd09::3'));
  assert.deepEqual(valuesOf(decisionOf(allocator, [held, entry('b', 2), entry('c', 3), entry('d', 4)])), {
    'demo/b': ['b.example.com 10.9.0.1', 'b.example.com fd09::1'],
    'demo/c': ['c.example.com 10.9.0.2', 'c.example.com fd09::2'],
  });
});

test('whatever was written to a status, once it is written as decided nothing is left to decide, and no address has two hosts', () => {
  const value = fc.constantFrom('240.240.0.1', '240.240.0.2', '240.240.0.3', '2001:2::1', '2001:2::2', '10.0.0.1', '');
  const made = fc.record({
    hosts: fc.uniqueArray(fc.constantFrom('a.org', 'b.org', 'c.org'), { minLength: 1 }),
    addresses: fc.constantFrom([], [], ['240.240.0.2'], ['240.240.0.0/30']),
    allocated: fc.array(fc.record({ host: fc.constantFrom('a.org', 'b.org', 'c.org'), value })),
    resolution: fc.constantFrom('STATIC', 'DNS', 'NONE'),
  });
  fc.assert(
    fc.property(fc.array(made, { maxLength: 5 }), (list) => {
      const entries = list.map(({ allocated, ...spec }, index) =>
        entry(`e${index}`, index, { spec, status: { addresses: allocated } }),
      );
      const updates = new Map(
        decisionOf(createAllocator(DEFAULT_MESH_SETTINGS), entries).map(({ key, addresses }) => [key, addresses]),
      );
      const written = entries.map((each) => ({
        ...each,
        allocated: updates.get(`demo/${each.name}`) ?? each.allocated,
      }));
      assert.deepEqual(decide(...written), {});
      const all = written.flatMap(({ allocated }) => allocated.map(({ value }) => value));
      assert.equal(new Set(all).size, all.length);
      const given = written.flatMap(({ addresses }) => addresses.filter((each) => !each.includes('/')));
      assert.deepEqual(
        all.filter((each) => given.includes(each)),
        [],
      );
    }),
  );
});

test('the mesh decides once for all changes of a turn, and is content when it sees what was decided', async () => {
  const { mesh, put, address } = meshUnderTest();
  let calls = 0;
  mesh.statuses.onPending(() => calls++);
  await put(serviceEntry('a'), serviceEntry('b'));
  const updates = [...mesh.statuses.addresses()];
  assert.deepEqual([updates.length, calls], [2, 1]);
  await put(...updates.map(({ key, addresses }) => serviceEntry(key.slice('demo/'.length), { status: { addresses } })));
  assert.deepEqual([...mesh.statuses.addresses()], []);
  assert.deepEqual(address('demo/b.example.com')?.addresses, [
    { network: '', address: '240.240.0.2' },
    { network: '', address: '2001:2::2' },
  ]);
});

test('addresses are decided anew for what counts for them, and for nothing else', () => {
  const before = entry('a', 1, status('a.example.com', '240.240.0.1', '2001:2::1'));
  const like = (more: object) => isSameForAllocation(before, { ...before, ...more });
  const optOut = { 'networking.istio.io/enable-autoallocate-ip': 'false' };
  for (const more of [
    { hosts: ['b.org'] },
    { addresses: ['10.0.0.1'] },
    { resolution: 'NONE' },
    { labels: optOut },
    { allocated: [] },
    { created: 0 },
  ])
    assert.equal(like(more), false, JSON.stringify(more));
  for (const more of [
    { ports: [] },
    { endpoints: [] },
    { labels: { a: 'b' } },
    { resolution: 'DNS' },
    { generation: 9 },
  ])
    assert.equal(like(more), true, JSON.stringify(more));
  assert.deepEqual([isSameForAllocation(null, before), isSameForAllocation(before, null)], [false, false]);
});

/** Workloads that differ in what is their own only are read by halves; that must not show. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs/minimal.js';
import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { PlainWorkload } from '../../src/state/plain-workload.ts';
import { createMeshState } from '../../src/state/store.ts';
import type { Workload } from '../../src/state/types.ts';
import { readAddress } from '../../src/xds/address.ts';
import { AlikeWorkloads, WorkloadParts } from '../../src/xds/alike.ts';
import { forgetAlike } from '../../src/xds/workload.ts';
import { encode, type Json } from '../support/xds-schema.ts';

const field = (value: Json): Buffer => encode('Workload', value);

/** What workloads have for themselves, also wrongly: twice, with values and wire types that nobody knows. */
const own = fc.oneof(
  fc.constantFrom('', 'a', 'b', 'a/b', 'ü').map((name) => field({ name })),
  fc.constantFrom('', 'a', '/a', 'u/a', 'u/b', 'u/ü', 'u/a/b', 'u/ba').map((uid) => field({ uid })),
  fc.constantFrom('', 'n1', 'n2').map((node) => field({ node })),
  fc.constantFrom('UNHEALTHY', 'HEALTHY').map((status) => field({ status })),
  fc
    .array(fc.constantFrom('0a000001', '0a000002', `${'00'.repeat(15)}01`, '0a00'), { maxLength: 6 })
    .map((addresses) => field({ addresses: addresses.map((hex) => Buffer.from(hex, 'hex')) })),
  fc.constantFrom('8801058801', '880107', '88018001', '0805', 'a20101ff', '0a01ff', 'a201').map(bytesOf),
);

/** What most pods have for themselves: one address, and the name is in the uid. */
const pod = fc
  .constantFrom('a', 'b', 'ü', 'a/b')
  .map((name) => [field({ name, uid: `u/${name}`, addresses: [Buffer.from('0a000003', 'hex')] })]);

const GATEWAY: Json = { hostname: { namespace: 'ns1', hostname: 'gateway' }, hboneMtlsPort: 15008 };

const shared = fc.oneof(
  fc.constantFrom('ns1', 'ns2').map((namespace) => field({ namespace })),
  fc.constantFrom('app', 'other').map((workloadName) => field({ workloadName })),
  fc.constantFrom('x.example.com').map((hostname) => field({ hostname })),
  fc
    .constantFrom({ 'ns1/a': { ports: [{ servicePort: 80, targetPort: 8080 }] } }, { 'ns1/b': {} })
    .map((services) => field({ services })),
  fc.constantFrom('a', 'b').map((zone) => field({ locality: { zone } })),
  fc.constantFrom('HBONE', 'NONE').map((tunnelProtocol) => field({ tunnelProtocol })),
  fc.constantFrom('td1', 'td2').map((trustDomain) => field({ trustDomain })),
  fc.constantFrom('sa1', 'sa2').map((serviceAccount) => field({ serviceAccount })),
  fc.constantFrom('net1', 'net2').map((network) => field({ network })),
  fc
    .constantFrom<Json[]>(
      { waypoint: GATEWAY },
      { networkGateway: GATEWAY },
      { networkMode: 'HOST_NETWORK' },
      { capacity: { value: 7 } },
      { nativeTunnel: true },
      { authorizationPolicies: ['ns1/p'] },
      { clusterId: 'c2' },
      { workloadType: 'JOB' },
      { canonicalName: 'c' },
      { canonicalRevision: 'r' },
      { applicationTunnel: { protocol: 'PROXY', port: 15088 } },
    )
    .map(field),
  fc
    .constantFrom('fa0703616263', '00', '12', '1201', '28ffffffff0f', '28ffffffffffffffffff01', 'c00c07', '8a000178')
    .map(bytesOf),
);

const workloads = fc.record({
  // One behind the other they are one message; those of one list have many of them in common.
  kinds: fc.array(fc.array(shared, { maxLength: 4 }), { minLength: 1, maxLength: 3 }),
  each: fc.array(
    fc.oneof(
      fc.record({ kind: fc.nat(2), before: fc.array(own, { maxLength: 3 }), after: fc.array(own) }),
      fc.record({ kind: fc.nat(2), before: fc.constant([]), after: pod }),
    ),
    { minLength: 2, maxLength: 12 },
  ),
});

const FIELDS = Object.keys((read(addressOf(field({ uid: 'u' }))) as WorkloadUpdate).workload) as readonly Exclude<
  keyof Workload,
  'services'
>[];

test('a workload is read as if it were the first of its kind', () => {
  let together = 0;
  let plain = 0;
  fc.assert(
    fc.property(workloads, ({ kinds, each }) => {
      const messages = each.map(({ kind, before, after }) =>
        addressOf(Buffer.concat([...before, ...kinds[kind % kinds.length]!, ...after])),
      );
      const alone = messages.map((message) => {
        forgetAlike();
        return read(message);
      });
      forgetAlike();
      const all = messages.map(read);
      assert.deepEqual(all.map(withoutProfile), alone.map(withoutProfile));
      together += all.length - new Set(all.map((one) => (typeof one === 'string' ? one : one.profile))).size;
      plain += all.filter((one) => typeof one !== 'string' && one.workload instanceof PlainWorkload).length;
      assert.deepEqual(stateOf(all), stateOf(alone.map(withoutProfile)));
    }),
    { numRuns: 500 },
  );
  assert.ok(together > 300, 'hardly any were alike');
  assert.ok(plain > 100, `hardly any took the shortest way: ${plain}`);
});

const oneHash: readonly [what: string, one: Json, other: Json][] = [
  ['at the beginning', { namespace: 'n1', serviceAccount: 'app' }, { namespace: 'n2', serviceAccount: 'app' }],
  ['at the end', { namespace: 'n1', serviceAccount: 'app1' }, { namespace: 'n1', serviceAccount: 'app2' }],
  ['in length', { namespace: 'n1' }, { namespace: 'n1', serviceAccount: 'app' }],
];
for (const [what, one, other] of oneHash) {
  test(`workloads of the same hash that differ ${what} are each itself`, () => {
    const parts = new WorkloadParts();
    const alike = new AlikeWorkloads(() => 7);
    const find = (value: Json) => {
      const bytes = field({ ...value, uid: 'u' });
      assert.ok(parts.split(bytes, 0, bytes.length));
      return alike.find(parts);
    };
    for (const [added, absent] of [
      [one, other],
      [other, one],
    ] as const) {
      assert.equal(find(added), undefined);
      const update = read(addressOf(field({ ...added, uid: 'u' })));
      assert.ok(typeof update !== 'string');
      alike.add(parts, update);
      assert.equal(find(added), update);
      assert.equal(find(absent), undefined);
    }
  });
}

function bytesOf(hex: string): Buffer {
  return Buffer.from(hex, 'hex');
}

function addressOf(workload: Buffer): Buffer {
  return Buffer.from(protobuf.Writer.create().uint32(0x0a).bytes(workload).finish());
}

/** The workload, or why it cannot be read. */
function read(message: Buffer): WorkloadUpdate | string {
  try {
    const address = readAddress(protobuf.Reader.create(message), message.length);
    assert.equal(address.kind, 'workload');
    return address.kind === 'workload' ? address.update : '';
  } catch (error) {
    return (error as Error).message;
  }
}

/** With all that the workload says of itself, in whatever form. */
function withoutProfile(one: WorkloadUpdate | string): WorkloadUpdate | string {
  if (typeof one === 'string') return one;
  const workload = Object.fromEntries(FIELDS.map((name) => [name, one.workload[name]])) as WorkloadUpdate['workload'];
  return { workload, services: one.services };
}

/** What a store has that they came to one after the other. */
function stateOf(list: readonly (WorkloadUpdate | string)[]) {
  const store = createMeshState({ localNode: '' });
  for (const one of list) {
    if (typeof one === 'string') store.apply({ removedWorkloads: ['u/2'] });
    else store.apply({ workloads: [one] });
  }
  const sorted = [...store.workloads()].sort((a, b) => (a.uid < b.uid ? -1 : 1));
  return {
    workloads: sorted,
    endpoints: [...store.stagedEndpoints()].map(([key, by]) => [key, [...by.keys()].sort()]).sort(),
  };
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseSocketAddress } from '../../src/netns/address.ts';
import type { InboundPlan, OutboundPlan } from '../../src/routing/plan.ts';
import type { MeshStore, MeshUpdate } from '../../src/state/mesh-state.ts';
import { textAt } from '../../src/state/text-list.ts';
import type { PlanQuery } from '../../src/worker/messages.ts';
import { PlanRegistry } from '../../src/worker/plan-registry.ts';
import { createPlanner } from '../../src/worker/planner.ts';
import { byAddress, byHostname, meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const NETWORK = '';
const NO_DNS = { addresses: () => null, resolve: async () => assert.fail('nothing has to be resolved') };
const client = workload('client', { workloadIps: ['10.0.0.1'] });

/** Keeps plans as a thread does, told by a registry what falls. */
function threadUnderTest(mesh: MeshStore) {
  const registry = new PlanRegistry<string>();
  const held = new Map<number, { query: PlanQuery; plan: OutboundPlan | InboundPlan }>();
  const planner = createPlanner(mesh, NETWORK, () => pod('client'), null, NO_DNS);
  let nextId = 1;
  const drop = (ids: readonly number[]) => {
    for (const id of ids) assert.ok(held.delete(id), `plan ${id} falls twice`);
  };
  mesh.subscribe(
    (change) => drop(registry.takeTouched(change).get('thread') ?? []),
    () => true,
  );
  return {
    registry,
    held,
    async ask(query: PlanQuery): Promise<number> {
      const id = nextId++;
      await planner(query, ({ plan, reads }) => {
        held.set(id, { query, plan });
        drop(registry.add('thread', query.uid, id, reads));
      });
      return id;
    },
  };
}

const outbound = (target: string): PlanQuery => ({
  kind: 'outbound',
  uid: 'uid-of-client',
  target: parseSocketAddress(target)!,
  peerIp: '10.0.0.1',
});

interface Row {
  readonly what: string;
  readonly before?: MeshUpdate;
  readonly target: string;
  readonly edit: MeshUpdate;
  readonly falls: boolean;
}

const web = service('web', { vips: ['/10.96.0.1'] });
const WEB = 'default/web.default.svc.cluster.local';
const member = (name: string, ip: string, more: Parameters<typeof workload>[1] = {}) =>
  workload(name, { workloadIps: [ip], services: { [WEB]: {} }, ...more });
const serving = { services: [web], workloads: [member('a', '10.0.0.2')] };
const block = service('block', { cidrVips: [{ network: '', cidr: '10.97.0.0/16' }] });

const rows: readonly Row[] = [
  {
    what: 'a service gains an endpoint',
    before: serving,
    target: '10.96.0.1:80',
    edit: { workloads: [member('b', '10.0.0.3')] },
    falls: true,
  },
  {
    what: 'a service loses an endpoint',
    before: serving,
    target: '10.96.0.1:80',
    edit: { removedWorkloads: ['Kubernetes//Pod/default/a'] },
    falls: true,
  },
  {
    what: 'an endpoint changes its locality',
    before: serving,
    target: '10.96.0.1:80',
    edit: { workloads: [member('a', '10.0.0.2', { locality: { zone: 'z' } })] },
    falls: true,
  },
  { what: 'an endpoint is sent again as it was', before: serving, target: '10.96.0.1:80', edit: serving, falls: false },
  {
    what: 'another service gains an endpoint',
    before: serving,
    target: '10.96.0.1:80',
    edit: { workloads: [workload('x', { workloadIps: ['10.0.0.9'], services: { 'default/other': {} } })] },
    falls: false,
  },
  {
    what: 'another workload comes',
    before: serving,
    target: '10.96.0.1:80',
    edit: { workloads: [workload('x', { workloadIps: ['10.0.0.9'] })] },
    falls: false,
  },
  { what: 'a policy comes', before: serving, target: '10.96.0.1:80', edit: { policies: [] }, falls: false },
  {
    what: 'the service changes its ports',
    before: serving,
    target: '10.96.0.1:80',
    edit: { services: [{ ...web, ports: { 80: 81 } }] },
    falls: true,
  },
  { what: 'the service goes', before: serving, target: '10.96.0.1:80', edit: { removedServices: [WEB] }, falls: true },
  {
    what: 'an unknown address becomes a workload',
    target: '10.0.0.2:80',
    edit: { workloads: [member('a', '10.0.0.2')] },
    falls: true,
  },
  { what: 'an unknown address becomes a VIP', target: '10.96.0.1:80', edit: { services: [web] }, falls: true },
  { what: 'an unknown address comes into a block', target: '10.97.3.4:80', edit: { services: [block] }, falls: true },
  {
    what: 'a block comes that does not hold the address',
    target: '10.98.3.4:80',
    edit: { services: [block] },
    falls: false,
  },
  {
    what: 'the block of an address goes',
    before: { services: [block] },
    target: '10.97.3.4:80',
    edit: { removedServices: ['default/block.default.svc.cluster.local'] },
    falls: true,
  },
  {
    what: 'a service with a block gains an endpoint',
    before: { services: [block] },
    target: '10.97.3.4:80',
    edit: { workloads: [workload('x', { services: { 'default/block.default.svc.cluster.local': {} } })] },
    falls: true,
  },
  {
    what: 'a waypoint that was missing comes, by address',
    before: { services: [{ ...web, waypoint: byAddress('10.0.0.9') }] },
    target: '10.96.0.1:80',
    edit: { workloads: [workload('wp', { workloadIps: ['10.0.0.9'] })] },
    falls: true,
  },
  {
    what: 'a waypoint that was missing comes, by hostname',
    before: { services: [{ ...web, waypoint: byHostname('wp.example.com') }] },
    target: '10.96.0.1:80',
    edit: { workloads: [workload('wp', { workloadIps: ['10.0.0.9'], hostname: 'wp.example.com' })] },
    falls: true,
  },
  {
    what: "the client's own workload changes",
    before: serving,
    target: '10.96.0.1:80',
    edit: { workloads: [workload('client', { workloadIps: ['10.0.0.1'], locality: { region: 'r' } })] },
    falls: true,
  },
];

for (const { what, before = {}, target, edit, falls } of rows) {
  test(`${what}: the plan ${falls ? 'falls' : 'stays'}`, async () => {
    const mesh = meshOf({ workloads: [client] }, before);
    const { ask, held, registry } = threadUnderTest(mesh);
    const id = await ask(outbound(target));
    mesh.apply(edit);
    assert.equal(held.has(id), !falls);
    assert.equal(registry.size, falls ? 0 : 1);
  });
}

test('a change of a large service leaves the plans of the others alone', async () => {
  const mesh = meshOf(
    { workloads: [client], services: [web, service('other', { vips: ['/10.96.0.2'] })] },
    { workloads: Array.from({ length: 1000 }, (_, i) => member(`m${i}`, `10.1.${i >> 8}.${i & 255}`)) },
  );
  const { ask, held } = threadUnderTest(mesh);
  const [ofLarge, ofOther] = [await ask(outbound('10.96.0.1:80')), await ask(outbound('10.96.0.2:80'))];
  mesh.apply({ workloads: [member('m0', '10.1.0.0', { status: 'Unhealthy' })] });
  assert.deepEqual([held.has(ofLarge), held.has(ofOther)], [false, true]);
});

test('the oldest plans of a pod go when it has too many, those of other pods stay', () => {
  const registry = new PlanRegistry<string>();
  registry.add('t', 'quiet', 0, ['x']);
  const displaced: number[] = [];
  for (let id = 1; id <= 5000; id++) displaced.push(...registry.add('t', 'scanning', id, ['x', String(id)]));
  assert.deepEqual(
    displaced,
    Array.from({ length: 5000 - 4096 }, (_, i) => i + 1),
  );
  assert.equal(registry.size, 4097);
  registry.forgetPod('scanning');
  assert.equal(registry.size, 1);
});

test('a thread that ended and a pod that stopped leave nothing behind', () => {
  const registry = new PlanRegistry<string>();
  for (const thread of ['t1', 't2'])
    for (const name of ['a', 'b']) registry.add(thread, name, name === 'a' ? 1 : 2, ['x']);
  registry.forgetThread('t1');
  registry.forgetPod('a');
  assert.equal(registry.size, 1);
  const left = registry.takeTouched({ touched: new Set(['x']), touchedBlocks: [] });
  assert.deepEqual([...left], [['t2', [2]]]);
  assert.equal(registry.size, 0);
});

/** A small world, so that edits meet each other and what was planned. */
const names = fc.constantFrom('a', 'b', 'client', 'wp');
const ips = fc.constantFrom('10.0.0.1', '10.0.0.2', '10.0.0.9', '10.97.0.1');
const hosts = fc.constantFrom('web', 'wp');
const key = (name: string) => `default/${name}.default.svc.cluster.local`;
const gateways = fc.constantFrom(
  null,
  byAddress('10.0.0.9'),
  byAddress('10.97.0.1'),
  byHostname('wp.default.svc.cluster.local'),
  byHostname('wp.example.com'),
);
const anyWorkload = fc
  .record({
    name: names,
    ips: fc.uniqueArray(ips, { maxLength: 2 }),
    waypoint: gateways,
    gateway: gateways,
    network: fc.constantFrom('', '', 'n2'),
    hostname: fc.constantFrom('', 'wp.example.com'),
    services: fc.uniqueArray(hosts, { maxLength: 2 }),
    capacity: fc.constantFrom(0, 1, 3),
    zone: fc.constantFrom('z1', 'z2'),
    healthy: fc.boolean(),
  })
  .map((given) =>
    workload(given.name, {
      workloadIps: given.ips,
      waypoint: given.waypoint,
      networkGateway: given.gateway,
      network: given.network,
      // A name without addresses would have to be resolved.
      hostname: given.ips.length === 0 ? '' : given.hostname,
      services: Object.fromEntries(given.services.map((name) => [key(name), {}])),
      capacity: given.capacity,
      locality: { zone: given.zone },
      status: given.healthy ? 'Healthy' : 'Unhealthy',
    }),
  );
const anyService = fc
  .record({
    name: hosts,
    vips: fc.uniqueArray(ips, { maxLength: 2 }),
    blocks: fc.uniqueArray(fc.constantFrom('10.97.0.0/16', '10.0.0.0/8'), { maxLength: 1 }),
    waypoint: gateways,
    mode: fc.constantFrom('Standard', 'Failover', 'Passthrough'),
    isPrivate: fc.boolean(),
  })
  .map((given) =>
    service(given.name, {
      vips: given.vips.map((ip) => `/${ip}`),
      cidrVips: given.blocks.map((cidr) => ({ network: '', cidr })),
      waypoint: given.waypoint,
      ports: { 80: 8080, 15008: 15008 },
      loadBalancer: { mode: given.mode as 'Failover', routingPreferences: ['Zone'], healthPolicy: 'OnlyHealthy' },
      visibility: given.isPrivate ? 'Namespace' : 'Public',
    }),
  );
const anyUpdate = fc.record(
  {
    workloads: fc.array(anyWorkload, { maxLength: 2 }),
    services: fc.array(anyService, { maxLength: 2 }),
    removedWorkloads: fc.array(
      names.map((name) => `Kubernetes//Pod/default/${name}`),
      { maxLength: 1 },
    ),
    removedServices: fc.array(hosts.map(key), { maxLength: 1 }),
  },
  { requiredKeys: [] },
);
const anyQuery: fc.Arbitrary<PlanQuery> = fc.oneof(
  fc.tuple(ips, fc.constantFrom(80, 15008)).map(([ip, port]) => outbound(`${ip}:${port}`)),
  fc
    .record({
      localIp: ips,
      peerIp: ips,
      authority: fc.constantFrom('10.0.0.2:80', 'web.default.svc.cluster.local:80', 'wp.default.svc.cluster.local:80'),
    })
    .map(
      (given): PlanQuery => ({
        kind: 'inbound',
        uid: 'uid-of-client',
        query: { kind: 'hbone', ...given, forwardedHost: null, fromNetwork: null },
      }),
    ),
);

test('after any edits the plans that are still held equal those made anew', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(anyUpdate, fc.array(anyQuery, { maxLength: 4 })), { maxLength: 12 }),
      async (steps) => {
        const mesh = meshOf({ workloads: [client] });
        const { ask, held } = threadUnderTest(mesh);
        const plan = createPlanner(mesh, NETWORK, () => pod('client'), null, NO_DNS);
        for (const [update, queries] of steps) {
          mesh.apply(update);
          // The client has to be there, or planning waits for it.
          if (mesh.localWorkload(pod('client')) === null) mesh.apply({ workloads: [client] });
          for (const { query, plan: kept } of held.values()) {
            await plan(query, (fresh) => assert.deepEqual(sorted(kept), sorted(fresh.plan)));
          }
          for (const query of queries) await ask(query);
        }
      },
    ),
    { numRuns: 300 },
  );
});

/** Nobody relies on the order of endpoints. */
function sorted(plan: OutboundPlan | InboundPlan): unknown {
  if (plan.kind !== 'forward') return plan;
  const groups = plan.groups.map(({ uids, names: pods, ips: addresses, ...group }) => ({
    ...group,
    members: addresses.map((ip, at) => [textAt(uids, at), pods.get(at), ip].join(' ')).sort(),
  }));
  return { ...plan, groups: groups.map((group) => JSON.stringify(group)).sort() };
}

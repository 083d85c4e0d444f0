import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import type { MeshResources } from '../../src/control/resources.ts';
import { asAddress, type Manifest, type MeshUnderTest, meshUnderTest } from './support/mesh-under-test.ts';

type Json = Record<string, unknown>;

const namespaces = fc.constantFrom('demo', 'other', 'istio-system');
const names = fc.constantFrom('a', 'b', 'c');
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
const without = (mapping: Json) =>
  Object.fromEntries(Object.entries(mapping).filter(([, value]) => value !== undefined));

const appLabels = fc
  .record({ app: maybe(fc.constantFrom('x', 'y')), tier: maybe(fc.constantFrom('front', 'back')) })
  .map(without);
const waypointLabels = fc
  .record({
    'istio.io/use-waypoint': maybe(fc.constantFrom('a', 'b', 'none')),
    'istio.io/use-waypoint-namespace': maybe(namespaces),
    'istio.io/use-waypoint-canary': maybe(fc.constantFrom('b', 'c')),
  })
  .map(without);
const labels = fc.tuple(appLabels, waypointLabels).map(([a, b]) => ({ ...a, ...b }));
const created = fc.constantFrom('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z', '2026-01-03T00:00:00Z');
const ips = fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1');
const ports = fc.constantFrom<Json[]>(
  [{ name: 'http', port: 80, targetPort: 8080 }],
  [{ name: 'http', port: 80, targetPort: 'web' }],
  [{ name: 'tcp', port: 90 }],
);
const modes = fc.constantFrom('UNSET', 'PERMISSIVE', 'STRICT', 'DISABLE');

function object(kind: string, rest: fc.Arbitrary<Json>, ofLabels: fc.Arbitrary<Json> = labels): fc.Arbitrary<Manifest> {
  return fc
    .tuple(namespaces, names, ofLabels, created, fc.constantFrom('u1', 'u2'), rest)
    .map(([namespace, name, labels, creationTimestamp, uid, rest]) => ({
      kind,
      metadata: { namespace, name, labels, creationTimestamp, uid, ...(rest.metadata as Json) },
      ...Object.fromEntries(Object.entries(rest).filter(([field]) => field !== 'metadata')),
    }));
}

function unnamespaced(kind: string, names: fc.Arbitrary<string>, labels: fc.Arbitrary<Json>): fc.Arbitrary<Manifest> {
  return fc.tuple(names, labels).map(([name, labels]) => ({ kind, metadata: { name, labels } }));
}

const endpoints = fc.array(
  fc.record({ address: fc.constantFrom('10.0.0.1', '10.0.0.9', 'h.org'), labels: waypointLabels }),
  { maxLength: 2 },
);

/** Objects that share names, labels, addresses and hosts, so that everything depends on everything. */
const objects: fc.Arbitrary<Manifest> = fc.oneof(
  {
    weight: 4,
    arbitrary: object(
      'Pod',
      fc
        .record({
          ip: maybe(ips),
          phase: fc.constantFrom('Running', 'Succeeded'),
          node: fc.constantFrom('n1', 'n2'),
          gateway: maybe(names),
        })
        .map(({ ip, phase, node, gateway }) => ({
          spec: { nodeName: node, containers: [{ ports: [{ name: 'web', containerPort: 8081, protocol: 'TCP' }] }] },
          status: { phase, podIP: ip },
          metadata: gateway === undefined ? {} : { labels: { 'gateway.networking.k8s.io/gateway-name': gateway } },
        })),
    ),
  },
  {
    weight: 4,
    arbitrary: object(
      'Service',
      fc
        .record({ ip: ips, selector: appLabels, ports })
        .map(({ ip, selector, ports }) => ({ spec: { clusterIP: ip, selector, ports } })),
    ),
  },
  {
    weight: 3,
    arbitrary: object(
      'ServiceEntry',
      fc
        .record({
          hosts: fc.uniqueArray(fc.constantFrom('h.org', 'i.org', 'a.demo.svc.cluster.local'), { minLength: 1 }),
          addresses: fc.constantFrom([], ['10.0.0.9'], ['10.0.0.0/24'], ['bad']),
          resolution: fc.constantFrom('STATIC', 'DNS', 'NONE'),
          endpoints,
          selector: maybe(appLabels),
        })
        .map(({ selector, ...spec }) => ({
          spec: {
            ...spec,
            ports: [{ number: 80, name: 'http', protocol: 'HTTP' }],
            ...(selector === undefined ? {} : { workloadSelector: { labels: selector } }),
          },
        })),
    ),
  },
  {
    weight: 2,
    arbitrary: object(
      'WorkloadEntry',
      fc.record({ address: ips, network: fc.constantFrom('', 'n2'), labels: appLabels }).map((spec) => ({ spec })),
    ),
  },
  {
    weight: 2,
    arbitrary: object(
      'EndpointSlice',
      fc
        .record({
          service: names,
          pods: fc.array(fc.record({ namespace: namespaces, name: names, uid: fc.constantFrom('u1', 'u2') }), {
            maxLength: 2,
          }),
          other: maybe(ips),
        })
        .map(({ service, pods, other }) => ({
          metadata: { labels: { 'kubernetes.io/service-name': service } },
          addressType: 'IPv4',
          endpoints: [
            ...pods.map((pod) => ({ addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', ...pod } })),
            ...(other === undefined ? [] : [{ addresses: [other] }]),
          ],
          ports: [{ name: 'http', port: 8080 }],
        })),
    ),
  },
  {
    weight: 2,
    arbitrary: object(
      'AuthorizationPolicy',
      fc
        .record({
          selector: maybe(appLabels.map((matchLabels) => ({ matchLabels }))),
          action: fc.constantFrom('ALLOW', 'DENY', 'AUDIT'),
          rules: fc.constantFrom([], [{}], [{ bad: true }]),
          targetRefs: maybe(
            fc
              .record({ kind: fc.constantFrom('Gateway', 'Service', 'ServiceEntry', 'GatewayClass'), name: names })
              .map((ref) => [ref]),
          ),
        })
        .map((spec) => ({ spec: without(spec) })),
    ),
  },
  {
    weight: 2,
    arbitrary: object(
      'PeerAuthentication',
      fc
        .record({ selector: maybe(appLabels.map((matchLabels) => ({ matchLabels }))), mode: modes, port: maybe(modes) })
        .map(({ selector, mode, port }) => ({
          spec: without({
            selector,
            mtls: { mode },
            portLevelMtls: port === undefined ? undefined : { 8080: { mode: port } },
          }),
        })),
    ),
  },
  {
    weight: 2,
    arbitrary: object(
      'Gateway',
      fc
        .record({
          gatewayClassName: fc.constantFrom('istio-waypoint', 'istio-remote'),
          from: fc.constantFrom('All', 'Same'),
          address: maybe(fc.constantFrom('10.0.0.7', '10.0.0.8')),
          type: fc.constantFrom('service', 'all'),
        })
        .map(({ gatewayClassName, from, address, type }) => ({
          metadata: { labels: { 'istio.io/waypoint-for': type, 'topology.istio.io/network': 'n2' } },
          spec: {
            gatewayClassName,
            listeners: [{ name: 'm', port: 15008, protocol: 'HBONE', allowedRoutes: { namespaces: { from } } }],
          },
          status: { addresses: address === undefined ? [] : [{ type: 'IPAddress', value: address }] },
        })),
    ),
  },
  {
    weight: 1,
    arbitrary: unnamespaced(
      'GatewayClass',
      fc.constant('istio-waypoint'),
      fc.constantFrom<Json>({}, { 'istio.io/waypoint-for': 'all' }),
    ),
  },
  {
    weight: 2,
    arbitrary: unnamespaced(
      'Namespace',
      namespaces,
      fc
        .tuple(waypointLabels, fc.constantFrom<Json>({}, { 'topology.istio.io/network': 'n1' }))
        .map(([a, b]) => ({ ...a, ...b })),
    ),
  },
  {
    weight: 1,
    arbitrary: unnamespaced(
      'Node',
      fc.constantFrom('n1', 'n2'),
      fc.constantFrom<Json>({}, { 'topology.kubernetes.io/zone': 'z' }),
    ),
  },
);

type Edit = { readonly put: Manifest } | { readonly remove: number };
const edits = fc.array(
  fc.array(
    fc.oneof(
      { weight: 4, arbitrary: objects.map((put): Edit => ({ put })) },
      { weight: 1, arbitrary: fc.nat(30).map((remove): Edit => ({ remove })) },
    ),
    { minLength: 1, maxLength: 6 },
  ),
  { minLength: 1, maxLength: 12 },
);

const nameOf = ({ kind, metadata }: Manifest) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`;

/** All that can be asked of the resources. */
function contentOf({ mesh }: MeshUnderTest): unknown {
  const { resources, statuses } = mesh;
  const addresses = [...resources.addresses()].map(({ name, version }) => [name, version]).sort();
  const keys = ['10.0.0.1', '10.0.0.2', '10.0.0.9', 'fd00::1'].flatMap((ip) => [`/${ip}`, `n1/${ip}`, `n2/${ip}`]);
  const shown = (key: string) =>
    resources
      .find(key)
      .map(({ resource, workloads }) => [resource.name, workloads.map(({ name }) => name).sort()])
      .sort();
  return {
    addresses,
    policies: [...resources.policies()].map(({ name, body }) => [name, Buffer.from(body).toString('hex')]).sort(),
    found: keys.map(shown),
    members: addresses.map(([name]) => shown(name!)),
    nodes: ['n1', 'n2'].map((node) => [...resources.workloadsOn(node)].map(({ name }) => name).sort()),
    conditions: [...statuses.conditions()].map(({ kind, ...rest }) => JSON.stringify([kind.kind, rest])).sort(),
    allocated: [...statuses.addresses()],
  };
}

/** What a client has that was only ever told of changes. */
function follow(resources: MeshResources): () => unknown {
  const known = new Map<string, string>();
  resources.onChange(({ addresses, policies }) => {
    for (const [names, of] of [
      [addresses, resources.address],
      [policies, resources.policy],
    ] as const) {
      for (const name of names) {
        const resource = of(name);
        if (resource === null) known.delete(name);
        else known.set(name, Buffer.from(resource.body).toString('hex'));
      }
    }
  });
  return () => [...known].sort();
}

/** Keys that workloads list and nobody knows: an agent may take them for nothing. */
function unknownPolicies(resources: MeshResources): string[] {
  const listed = [...resources.addresses()].flatMap(
    ({ body }) => (asAddress(body).authorizationPolicies as string[] | undefined) ?? [],
  );
  return listed.filter((key) => resources.policy(key) === null);
}

test('random edits, applied as they come, end in the mesh that is built at once from what is left', () =>
  check(async () => {}));

test('random edits end in the same mesh when they come while others are worked out', async (t) => {
  // Each look at the clock takes longer than a slice: other things happen after each step.
  let now = 0;
  t.mock.method(performance, 'now', () => (now += 1000));
  await check(async (steps) => {
    for (let step = 0; step < steps; step++) await setImmediate();
  });
});

/** @param pause between two edits, of so many slices */
async function check(pause: (slices: number) => Promise<void>): Promise<void> {
  await fc.assert(
    fc.asyncProperty(edits, fc.infiniteStream(fc.nat()), async (batches, random) => {
      const edited = meshUnderTest();
      edited.mesh.resources.onChange(() => assert.deepEqual(unknownPolicies(edited.mesh.resources), []));
      const followed = follow(edited.mesh.resources);
      const left = new Map<string, Manifest>();
      const wellFormed = new Set<string>();
      for (const batch of batches) {
        for (const edit of batch) {
          if ('put' in edit) {
            const before = edited.rejected.length;
            edited.put(edit.put);
            // What is malformed leaves the good version in force; without one, the last malformed one is stood in for.
            const name = nameOf(edit.put);
            const isGood = edited.rejected.length === before;
            if (isGood) wellFormed.add(name);
            if (isGood || !wellFormed.has(name)) left.set(name, edit.put);
          } else if (left.size > 0) {
            const manifest = [...left.values()][edit.remove % left.size]!;
            left.delete(nameOf(manifest));
            wellFormed.delete(nameOf(manifest));
            const { namespace, name } = manifest.metadata;
            edited.remove(manifest.kind, namespace === undefined ? name : `${namespace}/${name}`);
          }
          await pause(random.next().value % 8);
        }
        await edited.mesh.settled();
        assert.deepEqual(unknownPolicies(edited.mesh.resources), []);
      }
      const fresh = meshUnderTest();
      const shuffled = [...left.values()].map((manifest) => [random.next().value, manifest] as const);
      await fresh.put(...shuffled.sort(([a], [b]) => a - b).map(([, manifest]) => manifest));
      assert.deepEqual(contentOf(edited), contentOf(fresh));
      const now = [...edited.mesh.resources.addresses(), ...edited.mesh.resources.policies()];
      assert.deepEqual(followed(), now.map(({ name, body }) => [name, Buffer.from(body).toString('hex')]).sort());
    }),
    { numRuns: 300 },
  );
}

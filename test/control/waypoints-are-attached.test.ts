import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Manifest, meshUnderTest } from './support/mesh-under-test.ts';
import {
  keyOfService,
  merged,
  namespace,
  pod,
  service,
  serviceEntry,
  uidOf,
  waypoint,
  workloadEntry,
} from './support/objects.ts';

type Json = Record<string, unknown>;

const USE = 'istio.io/use-waypoint';
const labelled = (labels: Json) => ({ metadata: { labels } });
const gatewayClass = (labels: Json, annotations: Json = {}) =>
  ({ kind: 'GatewayClass', metadata: { name: 'istio-waypoint', labels, annotations } }) as unknown as Manifest;
const listener = (allowed: Json, more: Json = {}) => ({
  spec: {
    listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE', allowedRoutes: { namespaces: allowed }, ...more }],
  },
});
const at = (ip: string, network = '') => ({ address: { network, address: ip }, hboneMtlsPort: 15008 });
const wp = (more: Json = {}) => waypoint('wp', more);
const far = (more: Json = {}) => waypoint('wp', merged({ metadata: { namespace: 'far' } } as unknown as Json, more));
const ready = (value: string, type = 'IPAddress') => ({ status: { addresses: [{ type, value }] } });

/** [name, gateways and classes, labels of namespace and service, waypoint of the service, condition's reason] */
for (const [name, gateways, ofNamespace, ofService, wanted, reason] of [
  ['without a label', [wp()], {}, {}, null, null],
  ['by its own label', [wp()], {}, { [USE]: 'wp' }, at('10.3.0.1'), 'WaypointAccepted'],
  ['by the label of its namespace', [wp()], { [USE]: 'wp' }, {}, at('10.3.0.1'), 'WaypointAccepted'],
  ['that wants none', [wp()], { [USE]: 'wp' }, { [USE]: 'none' }, null, null],
  ['of a waypoint that is not known', [wp()], { [USE]: 'wp' }, { [USE]: 'other' }, null, 'WaypointIsNotReady'],
  [
    'of a waypoint without addresses',
    [wp({ status: { addresses: [] } })],
    {},
    { [USE]: 'wp' },
    null,
    'WaypointIsNotReady',
  ],
  [
    'of a waypoint with a hostname',
    [
      wp({
        status: {
          addresses: [
            { type: 'IPAddress', value: '10.3.0.1' },
            { type: 'Hostname', value: 'wp.demo' },
          ],
        },
      }),
    ],
    {},
    { [USE]: 'wp' },
    { hostname: { namespace: 'demo', hostname: 'wp.demo' }, hboneMtlsPort: 15008 },
    'WaypointAccepted',
  ],
  [
    'of a waypoint whose first address is none',
    [
      wp({
        status: {
          addresses: [
            { type: 'IPAddress', value: '10.3' },
            { type: 'IPAddress', value: '10.3.0.2' },
          ],
        },
      }),
    ],
    {},
    { [USE]: 'wp' },
    at('10.3.0.2'),
    'WaypointAccepted',
  ],
  [
    'of a waypoint for workloads',
    [wp(labelled({ 'istio.io/waypoint-for': 'workload' }))],
    {},
    { [USE]: 'wp' },
    null,
    'UnsupportedTrafficType',
  ],
  [
    'of a waypoint for workloads, by its namespace',
    [wp(labelled({ 'istio.io/waypoint-for': 'workload' }))],
    { [USE]: 'wp' },
    {},
    null,
    'UnsupportedTrafficType',
  ],
  [
    'of a waypoint for all',
    [wp(labelled({ 'istio.io/waypoint-for': 'all' }))],
    {},
    { [USE]: 'wp' },
    at('10.3.0.1'),
    'WaypointAccepted',
  ],
  [
    'of a waypoint for nothing',
    [wp(labelled({ 'istio.io/waypoint-for': 'none' }))],
    {},
    { [USE]: 'wp' },
    null,
    'UnsupportedTrafficType',
  ],
  [
    'of a waypoint whose class is for workloads',
    [wp(), gatewayClass({ 'istio.io/waypoint-for': 'workload' })],
    {},
    { [USE]: 'wp' },
    null,
    'UnsupportedTrafficType',
  ],
  [
    'of a waypoint that says otherwise than its class',
    [wp(labelled({ 'istio.io/waypoint-for': 'service' })), gatewayClass({ 'istio.io/waypoint-for': 'workload' })],
    {},
    { [USE]: 'wp' },
    at('10.3.0.1'),
    'WaypointAccepted',
  ],
  [
    'of another namespace that does not allow it',
    [far()],
    {},
    { [USE]: 'wp', [`${USE}-namespace`]: 'far' },
    null,
    'AttachmentDenied',
  ],
  [
    'of another namespace that allows all',
    [far(listener({ from: 'All' }))],
    {},
    { [USE]: 'wp', [`${USE}-namespace`]: 'far' },
    at('10.3.0.1'),
    'WaypointAccepted',
  ],
  [
    'of another namespace, by the labels of its own',
    [far(listener({ from: 'All' }))],
    { [USE]: 'wp', [`${USE}-namespace`]: 'far' },
    {},
    at('10.3.0.1'),
    'WaypointAccepted',
  ],
  [
    'of another namespace that allows some',
    [
      far(
        listener({
          from: 'Selector',
          selector: { matchLabels: { team: 'a' }, matchExpressions: [{ key: 'old', operator: 'DoesNotExist' }] },
        }),
      ),
    ],
    { team: 'a' },
    { [USE]: 'wp', [`${USE}-namespace`]: 'far' },
    at('10.3.0.1'),
    'WaypointAccepted',
  ],
  [
    'of another namespace that allows others',
    [far(listener({ from: 'Selector', selector: { matchLabels: { team: 'b' } } }))],
    { team: 'a' },
    { [USE]: 'wp', [`${USE}-namespace`]: 'far' },
    null,
    'AttachmentDenied',
  ],
  [
    'of its own namespace that allows nobody',
    [wp(listener({ from: 'None' }))],
    {},
    { [USE]: 'wp' },
    null,
    'AttachmentDenied',
  ],
  [
    'of another namespace, allowed at the listener of its binding',
    [
      far({
        metadata: { annotations: { 'ambient.istio.io/waypoint-inbound-binding': 'PROXY/15088' } },
        ...listener({ from: 'All' }, { port: 15088, protocol: 'x' }),
      }),
    ],
    {},
    { [USE]: 'wp', [`${USE}-namespace`]: 'far' },
    at('10.3.0.1'),
    'WaypointAccepted',
  ],
  [
    'that is a gateway of the mesh',
    [wp()],
    {},
    { [USE]: 'wp', 'gateway.istio.io/managed': 'istio.io-mesh-controller' },
    null,
    null,
  ],
] as [string, Manifest[], Json, Json, Json | null, string | null][]) {
  test(`waypoint of a service ${name}`, async () => {
    const { mesh, put, address, rejected } = meshUnderTest();
    const object = service('web', { metadata: { labels: ofService, generation: 2 } });
    // In one order, and in the other.
    await put(...gateways, namespace('demo', ofNamespace), object);
    assert.deepEqual(rejected, []);
    assert.deepEqual(address(keyOfService('web'))?.waypoint, wanted);
    const updates = [...mesh.statuses.conditions()];
    if (reason === null) assert.deepEqual(updates, []);
    else {
      const [{ key, fieldManager, observedGeneration, conditions }] = updates as [(typeof updates)[0]];
      assert.deepEqual([key, fieldManager, observedGeneration], ['demo/web', 'istio-ambient-service', 2]);
      assert.deepEqual(
        conditions.map(({ type, status, reason }) => [type, status, reason]),
        [['istio.io/WaypointBound', reason === 'WaypointAccepted' ? 'True' : 'False', reason]],
      );
    }
    const later = meshUnderTest();
    for (const manifest of [object, namespace('demo', ofNamespace), ...gateways.reverse()]) await later.put(manifest);
    assert.deepEqual(later.address(keyOfService('web'))?.waypoint, wanted);
    assert.deepEqual([...later.mesh.statuses.conditions()], updates);
  });
}

for (const [name, trafficType, ofNamespace, ofPod, bound] of [
  ['of a waypoint for services', 'service', {}, { [USE]: 'wp' }, false],
  ['of a waypoint for workloads', 'workload', {}, { [USE]: 'wp' }, true],
  ['of a waypoint for all', 'all', { [USE]: 'wp' }, {}, true],
  ['of a waypoint for services, by its namespace', 'service', { [USE]: 'wp' }, {}, false],
] as const) {
  test(`waypoint of workloads ${name}`, async () => {
    const { mesh, put, address } = meshUnderTest();
    await put(
      namespace('demo', ofNamespace),
      wp(labelled({ 'istio.io/waypoint-for': trafficType })),
      pod('web', labelled(ofPod)),
      workloadEntry('vm', labelled(ofPod)),
      serviceEntry('ext', { spec: { endpoints: [{ address: '10.0.0.7', labels: ofPod }] } }),
    );
    const uids = [
      uidOf('web'),
      'Kubernetes/networking.istio.io/WorkloadEntry/demo/vm',
      'Kubernetes/networking.istio.io/ServiceEntry/demo/ext/10.0.0.7',
    ];
    for (const uid of uids) assert.deepEqual(address(uid)?.waypoint, bound ? at('10.3.0.1') : null, uid);
    const ofEntry = [...mesh.statuses.conditions()].filter(({ kind }) => kind.kind === 'WorkloadEntry');
    const reasons = ofEntry.map(({ fieldManager, conditions }) => [fieldManager, conditions[0]!.reason]);
    const wanted = bound ? 'WaypointAccepted' : 'UnsupportedTrafficType';
    // What only its namespace asks for is no error of the entry.
    assert.deepEqual(reasons, bound || USE in ofPod ? [['istio-ambient-workloadentry', wanted]] : []);
  });
}

for (const [annotation, wanted] of [
  [undefined, null],
  ['PROXY', { protocol: 1, port: 0 }],
  ['PROXY/15088', { protocol: 1, port: 15088 }],
  ['PROXY/x', { protocol: 1, port: 0 }],
  ['NONE', { protocol: 0, port: 0 }],
  ['HTTP/15088', null],
] as const) {
  test(`pods of a waypoint with binding ${annotation} have no waypoint`, async () => {
    const { put, address } = meshUnderTest();
    const annotations = annotation === undefined ? {} : { 'ambient.istio.io/waypoint-inbound-binding': annotation };
    await put(
      namespace('demo', { [USE]: 'wp' }),
      wp(labelled({ 'istio.io/waypoint-for': 'all' })),
      gatewayClass({}, annotations),
      pod('web', labelled({ 'gateway.networking.k8s.io/gateway-name': 'wp' })),
      pod('other'),
    );
    assert.deepEqual([address(uidOf('web'))?.waypoint, address(uidOf('web'))?.applicationTunnel], [null, wanted]);
    assert.deepEqual(address(uidOf('other'))?.waypoint, at('10.3.0.1'));
  });
}

const CANARY = 'istio.io/use-waypoint-canary';
const WEIGHT = `${CANARY}-weight`;
const weighted = (weight: number) => [
  { destination: at('10.3.0.1'), weight: 100 - weight },
  { destination: at('10.3.0.2'), weight },
];
for (const [name, ofNamespace, ofService, wanted] of [
  ['of its own', [{}, {}], [{ [USE]: 'wp', [CANARY]: 'next' }, { [WEIGHT]: '10' }], weighted(10)],
  ['without a weight', [{}, {}], [{ [USE]: 'wp', [CANARY]: 'next' }, {}], weighted(0)],
  ['of its namespace', [{ [USE]: 'wp', [CANARY]: 'next' }, { [WEIGHT]: '100' }], [{}, {}], weighted(100)],
  ['of its namespace, with a waypoint of its own', [{ [CANARY]: 'next' }, {}], [{ [USE]: 'wp' }, {}], []],
  [
    'with a weight that is none',
    [{}, {}],
    [{ [USE]: 'wp', [CANARY]: 'next' }, { [WEIGHT]: '101' }],
    'the canary is not used',
  ],
  ['that is not ready', [{}, {}], [{ [USE]: 'wp', [CANARY]: 'unknown' }, {}], 'the canary is not used'],
  ['that is the waypoint itself', [{}, {}], [{ [USE]: 'wp', [CANARY]: 'wp' }, {}], 'the canary is not used'],
  ['without a waypoint', [{}, {}], [{ [CANARY]: 'next' }, {}], []],
] as [string, [Json, Json], [Json, Json], unknown[] | string][]) {
  test(`a canary ${name}`, async () => {
    const { mesh, put, address } = meshUnderTest();
    await put(
      namespace('demo', ...ofNamespace),
      wp(),
      waypoint('next', ready('10.3.0.2')),
      service('web', { metadata: { labels: ofService[0], annotations: ofService[1] } }),
    );
    const message = address(keyOfService('web'));
    assert.deepEqual(message?.weightedWaypoints, typeof wanted === 'string' ? [] : wanted);
    const [update] = mesh.statuses.conditions();
    if (typeof wanted === 'string') {
      assert.deepEqual(message?.waypoint, at('10.3.0.1'));
      assert.equal(update?.conditions[0]?.status, 'True');
      assert.match(update?.conditions[0]?.message ?? '', new RegExp(wanted));
    }
  });
}

test('gateways of the mesh are asked to use waypoints by label, where there is one', async () => {
  const { mesh, put } = meshUnderTest();
  const INGRESS = 'istio.io/ingress-use-waypoint';
  // The stock schema does not know the field (12): it is looked for in the bytes.
  const isSet = (name: string) =>
    Buffer.from(mesh.resources.address(keyOfService(name))!.body).includes(Buffer.from([0x60, 1]));
  await put(
    namespace('demo', { [INGRESS]: 'T' }),
    wp(),
    service('inherits', labelled({ [USE]: 'wp' })),
    service('says', labelled({ [USE]: 'wp', [INGRESS]: 'true' })),
    service('denies', labelled({ [USE]: 'wp', [INGRESS]: 'no' })),
    service('without', labelled({ [INGRESS]: 'true' })),
  );
  assert.deepEqual(['inherits', 'says', 'denies', 'without'].map(isSet), [true, true, false, false]);
});

test('a host of wildcards wants a waypoint, and is told so until it has one', async () => {
  const { mesh, put } = meshUnderTest();
  const reasons = () =>
    [...mesh.statuses.conditions()].flatMap(({ conditions }) => conditions.map(({ reason }) => reason));
  const wildcard = serviceEntry('ext', { spec: { hosts: ['*.example.com'], resolution: 'DYNAMIC_DNS' } });
  await put(wildcard, wp());
  assert.deepEqual(reasons(), ['NoWaypointForWildcardService']);
  await put(merged(wildcard, labelled({ [USE]: 'wp' })));
  assert.deepEqual(reasons(), ['WaypointAccepted']);
});

test('what a status says already is not written again, and what it says too much is taken away', async () => {
  const { mesh, put, remove } = meshUnderTest();
  let calls = 0;
  mesh.statuses.onPending(() => calls++);
  const web = service('web', { metadata: { generation: 2, labels: { [USE]: 'wp' } } });
  await put(wp(), web);
  const [update] = mesh.statuses.conditions();
  assert.equal(calls, 1);
  const conditions = update!.conditions.map((each) => ({
    ...each,
    observedGeneration: 2,
    lastTransitionTime: '2026-01-01T00:00:00Z',
  }));
  const others = { type: 'example.com/Other', status: 'True' };
  await put(merged(web, { status: { conditions: [others, ...conditions] } }));
  assert.deepEqual([[...mesh.statuses.conditions()], calls], [[], 1]);
  await put(merged(web, { metadata: { labels: { [USE]: 'none' } }, status: { conditions: [others, ...conditions] } }));
  assert.deepEqual(
    [...mesh.statuses.conditions()].map(({ conditions }) => conditions),
    [[]],
  );
  assert.equal(calls, 2);
  await remove('Service', 'demo/web');
  assert.deepEqual([...mesh.statuses.conditions()], []);
});

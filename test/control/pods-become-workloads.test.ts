import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asAddress, type Manifest, meshUnderTest } from './support/mesh-under-test.ts';
import { keyOfService, pod, service, serviceEntry, uidOf } from './support/objects.ts';

type Json = Record<string, unknown>;

/** The workload of pod `demo/web`, among other objects. */
async function workloadOf(web: Manifest, ...others: Manifest[]): Promise<Json | null> {
  const { put, address, rejected } = meshUnderTest();
  await put(...others, web);
  assert.deepEqual(rejected, []);
  return address(uidOf('web'));
}

const unready = { conditions: [{ type: 'Ready', status: 'False' }] };

for (const [name, more, wanted] of [
  ['running and ready', {}, { status: 0, networkMode: 0, workloadType: 2, clusterId: 'Kubernetes', trustDomain: '' }],
  ['pending with an address', { status: { phase: 'Pending', ...unready } }, { status: 1 }],
  ['of an unknown phase', { status: { phase: 'Unknown' } }, { status: 0 }],
  ['not ready', { status: unready }, { status: 1 }],
  ['being deleted', { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } }, { status: 1 }],
  ['failed', { status: { phase: 'Failed' } }, null],
  ['succeeded', { status: { phase: 'Succeeded' } }, null],
  ['without an address', { status: { podIPs: [], podIP: undefined } }, null],
  ['with one address only', { status: { podIPs: undefined, podIP: '10.0.0.9' } }, { addresses: ['10.0.0.9'] }],
  [
    'with addresses of both families',
    { status: { podIPs: [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }] } },
    { addresses: ['10.0.0.1', 'fd00::1'] },
  ],
  ['with an address that is none', { status: { podIPs: [{ ip: '10.0.0.1' }, { ip: '10.0.0.256' }] } }, null],
  ['on the network of its host', { spec: { hostNetwork: true } }, { networkMode: 1 }],
  ['without a service account', { spec: { serviceAccountName: undefined } }, { serviceAccount: '' }],
  [
    'not enrolled',
    { metadata: { annotations: { 'ambient.istio.io/redirection': 'disabled' } } },
    { tunnelProtocol: 0, nativeTunnel: false },
  ],
  [
    'enrolled',
    { metadata: { annotations: { 'ambient.istio.io/redirection': 'enabled' } } },
    { tunnelProtocol: 1, nativeTunnel: false },
  ],
  [
    'that speaks HBONE itself',
    { metadata: { labels: { 'networking.istio.io/tunnel': 'other,http' } } },
    { tunnelProtocol: 1, nativeTunnel: true },
  ],
  [
    'whose list of tunnels has a space',
    { metadata: { labels: { 'networking.istio.io/tunnel': 'other, http' } } },
    { tunnelProtocol: 0, nativeTunnel: false },
  ],
] as [string, Json, Json | null][]) {
  test(`a pod ${name}`, async () => {
    const workload = await workloadOf(pod('web', more));
    if (wanted === null) assert.equal(workload, null);
    else for (const [field, value] of Object.entries(wanted)) assert.deepEqual(workload?.[field], value, field);
  });
}

const owner = (kind: string, name: string, controller = true) => [{ kind, name, controller }] as const;
for (const [wanted, labels, ownerReferences, generateName] of [
  ['given', { 'service.istio.io/workload-name': 'given' }, owner('ReplicaSet', 'web-5f'), 'web-'],
  ['web', { 'pod-template-hash': '5f' }, owner('ReplicaSet', 'web-5f'), 'web-5f-'],
  ['web', { 'rollouts-pod-template-hash': '5f' }, owner('ReplicaSet', 'web-5f'), 'web-5f-'],
  ['web-5f', { 'pod-template-hash': '6a' }, owner('ReplicaSet', 'web-5f'), 'web-5f-'],
  ['web-5f', {}, owner('ReplicaSet', 'web-5f'), 'web-5f-'],
  ['config', { deploymentconfig: 'config' }, owner('ReplicationController', 'config-1'), 'config-1-'],
  ['config-1', {}, owner('ReplicationController', 'config-1'), 'config-1-'],
  ['nightly', {}, owner('Job', 'nightly-28512345'), 'nightly-28512345-'],
  ['nightly-1234567', {}, owner('Job', 'nightly-1234567'), 'nightly-1234567-'],
  ['set', {}, owner('StatefulSet', 'set'), 'set-'],
  ['web', {}, owner('ReplicaSet', 'web-5f', false), 'web-5f-'],
  ['web', {}, owner('Node', 'node1'), undefined],
] as const) {
  test(`workload name ${wanted} of ${ownerReferences[0].kind} ${ownerReferences[0].name} ${JSON.stringify(labels)}`, async () => {
    const workload = await workloadOf(pod('web', { metadata: { labels, ownerReferences, generateName } }));
    assert.equal(workload?.workloadName, wanted);
  });
}

for (const [labels, name, revision] of [
  [{}, 'web', 'latest'],
  [{ app: 'a', version: 'v1' }, 'a', 'v1'],
  [{ app: 'a', 'app.kubernetes.io/name': 'b', version: 'v1', 'app.kubernetes.io/version': 'v2' }, 'b', 'v2'],
  [
    {
      'app.kubernetes.io/name': 'b',
      'service.istio.io/canonical-name': 'c',
      'app.kubernetes.io/version': 'v2',
      'service.istio.io/canonical-revision': 'v3',
    },
    'c',
    'v3',
  ],
] as const) {
  test(`canonical name and revision by ${JSON.stringify(labels)}`, async () => {
    const web = pod('web');
    const workload = await workloadOf({ ...web, metadata: { ...web.metadata, labels } } as Manifest);
    assert.deepEqual([workload?.canonicalName, workload?.canonicalRevision], [name, revision]);
  });
}

const containers = [
  { name: 'a', ports: [{ name: 'udp', containerPort: 1, protocol: 'UDP' }] },
  {
    name: 'b',
    ports: [
      { name: 'web', containerPort: 8081, protocol: 'TCP' },
      { name: 'udp', containerPort: 2, protocol: 'TCP' },
      { name: 'unsaid', containerPort: 3 },
    ],
  },
];
const initContainers = [
  { name: 'once', ports: [{ name: 'side', containerPort: 4, protocol: 'TCP' }] },
  {
    name: 'sidecar',
    restartPolicy: 'Always',
    ports: [
      { name: 'side', containerPort: 5, protocol: 'TCP' },
      { name: 'web', containerPort: 6, protocol: 'TCP' },
    ],
  },
];
for (const [name, port, wanted] of [
  ['a number', { port: 80, targetPort: 8080 }, [[80, 8080]]],
  ['nothing, as in a file', { port: 80 }, [[80, 80]]],
  ['a name', { port: 80, targetPort: 'web' }, [[80, 8081]]],
  ['a name of a port that is not TCP first', { port: 80, targetPort: 'udp' }, [[80, 2]]],
  ['a name of a sidecar', { port: 80, targetPort: 'side' }, [[80, 5]]],
  ['a name without a protocol', { port: 80, targetPort: 'unsaid' }, []],
  ['a name that no port has', { port: 80, targetPort: 'constructor' }, []],
  ['a number over UDP', { port: 53, protocol: 'UDP', targetPort: 5353 }, [[53, 5353]]],
] as const) {
  test(`a service port leads to ${name}`, async () => {
    const workload = await workloadOf(
      pod('web', { spec: { containers, initContainers } }),
      service('web', { spec: { ports: [{ name: 'p', protocol: 'TCP', ...port }] } }),
    );
    assert.deepEqual(workload?.services, {
      [keyOfService('web')]: {
        ports: wanted.map(([servicePort, targetPort]) => ({ servicePort, targetPort, appProtocol: 0 })),
      },
    });
  });
}

test('ports of a ServiceEntry lead to container ports of their names, else to their targets', async () => {
  const entry = serviceEntry('ext', {
    spec: {
      workloadSelector: { labels: { app: 'web' } },
      ports: [
        { number: 80, name: 'web', protocol: 'HTTP' },
        { number: 81, name: 'other', protocol: 'HTTP', targetPort: 9000 },
        { number: 82, name: 'more', protocol: 'HTTP' },
      ],
    },
  });
  const workload = await workloadOf(pod('web', { spec: { containers } }), entry);
  const ports = (workload!.services as Record<string, { ports: Json[] }>)['demo/ext.example.com']!.ports;
  assert.deepEqual(
    ports.map(({ servicePort, targetPort }) => [servicePort, targetPort]),
    [
      [80, 8081],
      [81, 9000],
      [82, 82],
    ],
  );
});

test('services are those of the namespace whose selectors match', async () => {
  const workload = await workloadOf(
    pod('web', { metadata: { labels: { app: 'web', tier: 'front' } } }),
    service('web'),
    service('both', { spec: { selector: { app: 'web', tier: 'front' } } }),
    service('more', { spec: { selector: { app: 'web', tier: 'front', zone: 'a' } } }),
    service('nothing', { spec: { selector: undefined } }),
    service('elsewhere', { metadata: { namespace: 'other' }, spec: { selector: { app: 'web' } } }),
  );
  assert.deepEqual(Object.keys(workload?.services as Json), [keyOfService('both'), keyOfService('web')]);
});

const slice = (targetRef: Json, service = 'manual') => ({
  kind: 'EndpointSlice',
  metadata: { name: `${service}-1`, namespace: 'demo', labels: { 'kubernetes.io/service-name': service } },
  addressType: 'IPv4',
  endpoints: [{ addresses: ['10.0.0.1'], targetRef }],
  ports: [{ name: 'http', port: 1, protocol: 'TCP' }],
});
const target = { kind: 'Pod', namespace: 'demo', name: 'web', uid: 'uid-web' };
for (const [name, targetRef, belongs] of [
  ['that names it', target, true],
  ['that names an earlier pod of its name', { ...target, uid: 'uid-before' }, false],
  ['that names another pod', { ...target, name: 'other' }, false],
  ['with its address only', { kind: 'Node', name: 'web' }, false],
] as const) {
  test(`a pod ${belongs ? 'serves' : 'does not serve'} a service without a selector by a slice ${name}`, async () => {
    const workload = await workloadOf(
      pod('web'),
      service('manual', { spec: { selector: undefined } }),
      slice(targetRef) as unknown as Manifest,
    );
    assert.deepEqual(Object.keys(workload?.services as Json), belongs ? [keyOfService('manual')] : []);
  });
}

test('a slice of a service that selects the pod changes nothing', async () => {
  const workload = await workloadOf(pod('web'), service('web'), slice(target, 'web') as unknown as Manifest);
  assert.deepEqual(Object.keys(workload?.services as Json), [keyOfService('web')]);
});

test('locality is that of the node, once the node is known', async () => {
  const { put, address, remove, changes } = meshUnderTest();
  await put(pod('web'));
  assert.equal(address(uidOf('web'))?.locality, null);
  const labels = {
    'topology.kubernetes.io/region': 'r',
    'topology.kubernetes.io/zone': 'z',
    'topology.istio.io/subzone': 's',
  };
  const legacy = { 'failure-domain.beta.kubernetes.io/zone': 'old' };
  await put({ kind: 'Node', metadata: { name: 'node1', labels } } as Manifest);
  assert.deepEqual(address(uidOf('web'))?.locality, { region: 'r', zone: 'z', subzone: 's' });
  changes();
  await put({ kind: 'Node', metadata: { name: 'node1', labels: { ...labels, beat: '2' } } } as Manifest);
  assert.deepEqual(changes(), { addresses: [], policies: [] });
  await put({ kind: 'Node', metadata: { name: 'node1', labels: legacy } } as Manifest);
  assert.equal(address(uidOf('web'))?.locality, null);
  await remove('Node', 'node1');
  assert.equal(address(uidOf('web'))?.locality, null);
});

test('network, cluster and trust domain are those of the mesh', async () => {
  const { put, address } = meshUnderTest({ clusterId: 'west', trustDomain: 'example.org' });
  const system = (network: string) =>
    ({
      kind: 'Namespace',
      metadata: { name: 'istio-system', labels: { 'topology.istio.io/network': network } },
    }) as Manifest;
  await put(
    pod('web', { metadata: { labels: { 'topology.istio.io/network': 'ignored' } } }),
    service('web'),
    system('n1'),
  );
  const uid = 'west//Pod/demo/web';
  assert.deepEqual(
    [address(uid)?.network, address(uid)?.clusterId, address(uid)?.trustDomain],
    ['n1', 'west', 'example.org'],
  );
  await put(system('n2'));
  assert.equal(address(uid)?.network, 'n2');
  assert.deepEqual(address(keyOfService('web'))?.addresses, [{ network: 'n2', address: '10.1.0.1' }]);
});

test('a pod that is not ready any more, has ended or is gone is told of as it goes', async () => {
  const { mesh, put, remove, address, changes } = meshUnderTest();
  await put(service('web'), pod('web'));
  changes();
  await put(pod('web', { status: unready }));
  assert.deepEqual(changes().addresses, [uidOf('web')]);
  assert.deepEqual(
    [...mesh.resources.workloadsOf(keyOfService('web'))!].map(({ name }) => name),
    [uidOf('web')],
  );
  await put(pod('web', { metadata: { labels: { app: 'web', unused: 'yes' } }, status: unready }));
  assert.deepEqual(changes().addresses, []);
  await put(pod('web', { status: { phase: 'Succeeded' } }));
  assert.deepEqual([changes().addresses, address(uidOf('web'))], [[uidOf('web')], null]);
  await remove('Pod', 'demo/web');
  assert.deepEqual(changes().addresses, []);
});

test('a changed service changes those workloads that serve it, and no others', async () => {
  const { put, remove, changes, address } = meshUnderTest();
  await put(service('web'), pod('web'), pod('other', { status: { podIPs: [{ ip: '10.0.0.2' }] } }));
  changes();
  await put(service('web', { spec: { ports: [{ name: 'http', port: 81, targetPort: 8080 }] } }));
  assert.deepEqual(changes().addresses, [uidOf('web'), keyOfService('web')]);
  await put(
    service('web', { spec: { ports: [{ name: 'http', port: 81, targetPort: 8080 }], clusterIPs: ['10.1.0.2'] } }),
  );
  assert.deepEqual(changes().addresses, [keyOfService('web')]);
  await remove('Service', 'demo/web');
  assert.deepEqual(changes().addresses, [uidOf('web'), keyOfService('web')]);
  assert.deepEqual(address(uidOf('web'))?.services, {});
});

test('workloads are found by address, service and node', async () => {
  const { mesh, put } = meshUnderTest();
  const names = (key: string) =>
    mesh.resources.find(key).map(({ resource, workloads }) => [resource.name, workloads.map(({ name }) => name)]);
  const hostPods = ['a', 'b'].map((name) =>
    pod(name, { spec: { hostNetwork: true }, status: { podIPs: [{ ip: '10.9.0.1' }] } }),
  );
  await put(service('web'), pod('web'), ...hostPods);
  assert.deepEqual(names(uidOf('web')), [[uidOf('web'), []]]);
  assert.deepEqual(names('/10.0.0.1'), [[uidOf('web'), []]]);
  assert.deepEqual(names('/10.9.0.1'), [
    [uidOf('a'), []],
    [uidOf('b'), []],
  ]);
  for (const key of [keyOfService('web'), '/10.1.0.1'])
    assert.deepEqual(names(key), [[keyOfService('web'), [uidOf('web')]]]);
  // A ServiceEntry with the address of a Service does not hide it.
  await put(service('web'), serviceEntry('a', { metadata: { namespace: 'aaa' }, spec: { addresses: ['10.1.0.1'] } }));
  assert.deepEqual(names('/10.1.0.1'), [
    ['aaa/a.example.com', []],
    [keyOfService('web'), [uidOf('web')]],
  ]);
  assert.deepEqual(names('/10.0.0.77'), []);
  assert.deepEqual(mesh.resources.aliases(uidOf('web')), ['/10.0.0.1']);
  assert.equal([...mesh.resources.workloadsOn('node1')].length, 3);
  assert.equal(mesh.resources.workloadsOf(uidOf('web')), null);
  assert.equal(asAddress(mesh.resources.address(uidOf('web'))!.body).name, 'web');
});

test('a pod that is made anew while everything is worked out is there in the end', async () => {
  const { mesh, put, remove, address } = meshUnderTest();
  const many = Array.from({ length: 3000 }, (_, index) => pod(`p${index}`));
  await put(...many);
  const network = { 'topology.istio.io/network': 'n1' };
  put({ kind: 'Namespace', metadata: { name: 'istio-system', labels: network } } as Manifest);
  // In the midst of it: the first ones have been worked out, the others have not.
  while (address(uidOf('p0'))?.network !== 'n1') await new Promise((resolve) => setImmediate(resolve));
  assert.equal(address(uidOf('p2999'))?.network, '');
  remove('Pod', 'demo/p2999');
  put(pod('p2999', { metadata: { uid: 'another' } }));
  await mesh.settled();
  assert.equal(address(uidOf('p2999'))?.network, 'n1');
  assert.equal(mesh.resources.counts().addresses, 3000);
});

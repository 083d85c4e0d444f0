import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Manifest, meshUnderTest } from './support/mesh-under-test.ts';
import {
  authorizationPolicy,
  keyOfService,
  namespace,
  peerAuthentication,
  pod,
  service,
  serviceEntry,
  workloadEntry,
} from './support/objects.ts';

type Json = Record<string, unknown>;

const uidOfEntry = (name: string) => `Kubernetes/networking.istio.io/WorkloadEntry/demo/${name}`;
const uidOfEndpoint = (entry: string, address: string) =>
  `Kubernetes/networking.istio.io/ServiceEntry/demo/${entry}/${address}`;

/** Ports of a workload by the service's key, as pairs. */
function portsOf(workload: Json | null): Record<string, number[][]> {
  return Object.fromEntries(
    Object.entries(workload!.services as Record<string, { ports: { servicePort: number; targetPort: number }[] }>).map(
      ([key, { ports }]) => [key, ports.map(({ servicePort, targetPort }) => [servicePort, targetPort])],
    ),
  );
}

for (const [name, more, wanted] of [
  [
    'an address',
    {},
    { addresses: ['10.2.0.1'], hostname: '', status: 0, workloadType: 2, workloadName: 'vm', capacity: null },
  ],
  ['a hostname', { spec: { address: 'vm.example.com' } }, { addresses: [], hostname: 'vm.example.com' }],
  ['no address', { spec: { address: undefined } }, { addresses: [], hostname: '' }],
  ['a weight', { spec: { weight: 3 } }, { capacity: { value: 3 } }],
  ['a network', { spec: { network: 'n2' } }, { network: 'n2' }],
  ['a locality', { spec: { locality: 'r/z' } }, { locality: { region: 'r', zone: 'z', subzone: '' } }],
  ['a service account', { spec: { serviceAccount: 'vm' } }, { serviceAccount: 'vm' }],
  [
    'labels of its spec',
    { metadata: { labels: { app: 'm' } }, spec: { labels: { app: 's', version: 'v1' } } },
    { canonicalName: 'm', canonicalRevision: 'v1' },
  ],
  ['a group', { metadata: { annotations: { 'istio.io/autoRegistrationGroup': 'group' } } }, { workloadName: 'group' }],
  ['a workload name', { metadata: { labels: { 'service.istio.io/workload-name': 'w' } } }, { workloadName: 'w' }],
  [
    'a tunnel',
    { metadata: { labels: { 'networking.istio.io/tunnel': 'http' } } },
    { tunnelProtocol: 1, nativeTunnel: true },
  ],
] as [string, Json, Json][]) {
  test(`a WorkloadEntry with ${name}`, async () => {
    const { put, address, rejected } = meshUnderTest();
    await put(workloadEntry('vm', more));
    assert.deepEqual(rejected, []);
    const workload = address(uidOfEntry('vm'));
    for (const [field, value] of Object.entries(wanted)) assert.deepEqual(workload?.[field], value, field);
  });
}

test('ports of a WorkloadEntry override those of services, by the names that each kind goes by', async () => {
  const { put, address } = meshUnderTest();
  const ports = [
    { name: 'http', port: 80, targetPort: 8080 },
    { name: 'plain', port: 81, targetPort: 8081 },
    { name: 'named', port: 82, targetPort: 'web' },
    { name: 'missing', port: 83, targetPort: 'constructor' },
  ];
  await put(
    service('vm', { spec: { ports } }),
    serviceEntry('ext', {
      spec: {
        workloadSelector: { labels: { app: 'vm' } },
        ports: [
          { number: 80, name: 'http', protocol: 'HTTP' },
          { number: 81, name: 'web', protocol: 'HTTP', targetPort: 9 },
          { number: 82, name: 'unnamed', protocol: 'HTTP', targetPort: 9 },
        ],
      },
    }),
    workloadEntry('vm', { spec: { ports: { http: 1080, web: 1090 } } }),
  );
  assert.deepEqual(portsOf(address(uidOfEntry('vm'))), {
    [keyOfService('vm')]: [
      [80, 1080],
      [81, 8081],
      [82, 1090],
    ],
    'demo/ext.example.com': [
      [80, 1080],
      [81, 1090],
      [82, 9],
    ],
  });
});

test('whether Services select WorkloadEntries, and ServiceEntries pods, can be switched off', async () => {
  const { put, address } = meshUnderTest({ servicesSelectWorkloadEntries: false, serviceEntriesSelectPods: false });
  const selecting = serviceEntry('ext', { spec: { workloadSelector: { labels: { app: 'vm' } } } });
  await put(service('vm'), selecting, workloadEntry('vm'), pod('vm'));
  assert.deepEqual(Object.keys(portsOf(address(uidOfEntry('vm')))), ['demo/ext.example.com']);
  assert.deepEqual(Object.keys(portsOf(address('Kubernetes//Pod/demo/vm'))), [keyOfService('vm')]);
});

test('each endpoint of a ServiceEntry is a workload', async () => {
  const { mesh, put, address, changes } = meshUnderTest();
  const endpoints = [
    { address: '10.4.0.1', network: 'n2', ports: { http: 8080 }, weight: 2, locality: 'r', serviceAccount: 'ext' },
    { address: 'a.example.com', labels: { app: 'ignored' } },
    { address: '10.4.0.1', serviceAccount: 'second' },
  ];
  await put(
    authorizationPolicy('by-entry', { selector: { matchLabels: { app: 'ext' } } }),
    serviceEntry('ext', { metadata: { labels: { app: 'ext' } }, spec: { hosts: ['a.org', 'b.org'], endpoints } }),
  );
  const first = address(uidOfEndpoint('ext', '10.4.0.1'));
  assert.deepEqual(portsOf(first), { 'demo/a.org': [[80, 8080]], 'demo/b.org': [[80, 8080]] });
  assert.deepEqual(
    [first?.name, first?.workloadName, first?.canonicalName, first?.network, first?.serviceAccount, first?.capacity],
    ['ext', 'ext', 'ext', 'n2', 'ext', { value: 2 }],
  );
  const second = address(uidOfEndpoint('ext', 'a.example.com'));
  // The network of an endpoint is not that of the next ones, as it is in istiod.
  assert.deepEqual([second?.hostname, second?.addresses, second?.network], ['a.example.com', [], '']);
  assert.deepEqual(second?.authorizationPolicies, ['demo/by-entry']);
  assert.equal(mesh.resources.counts().addresses, 4);
  changes();
  await put(
    serviceEntry('ext', {
      metadata: { labels: { app: 'ext' } },
      spec: { hosts: ['a.org', 'b.org'], endpoints: endpoints.slice(0, 1) },
    }),
  );
  assert.deepEqual(changes().addresses, [uidOfEndpoint('ext', 'a.example.com')]);
});

for (const [resolution, more, hosts] of [
  ['DNS', {}, ['a.org', 'b.org']],
  ['DNS_ROUND_ROBIN', {}, ['a.org', 'b.org']],
  ['DYNAMIC_DNS', {}, ['a.org', 'b.org']],
  ['DNS', { workloadSelector: { labels: { app: 'x' } } }, []],
  ['STATIC', {}, []],
  ['NONE', {}, []],
] as const) {
  test(`resolution ${resolution} without endpoints ${JSON.stringify(more)}`, async () => {
    const { mesh, put, address } = meshUnderTest();
    await put(serviceEntry('ext', { spec: { hosts: ['a.org', 'b.org'], resolution, ...more } }));
    for (const host of hosts) {
      const workload = address(uidOfEndpoint('ext', host));
      assert.deepEqual([workload?.hostname, Object.keys(portsOf(workload))], [host, [`demo/${host}`]]);
    }
    assert.equal(mesh.resources.counts().addresses, 2 + hosts.length);
  });
}

const slice = (more: Json = {}) =>
  ({
    kind: 'EndpointSlice',
    metadata: { name: 'api-1', namespace: 'demo', labels: { 'kubernetes.io/service-name': 'api' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: ['10.5.0.1', '10.5.0.2'], conditions: { ready: true } }],
    ports: [
      { name: 'https', port: 6443, protocol: 'TCP' },
      { name: 'unknown', port: 1, protocol: 'TCP' },
      { name: 'dns', port: 53, protocol: 'UDP' },
    ],
    ...more,
  }) as unknown as Manifest;
const api = service('api', {
  spec: {
    selector: undefined,
    ports: [
      { name: 'https', port: 443 },
      { name: 'dns', port: 53, protocol: 'UDP' },
    ],
  },
});
const uidOfSlice = (ip: string) => `Kubernetes/discovery.k8s.io/EndpointSlice/demo/api-1/${ip}`;

test('an endpoint of a slice that is no pod is a workload of its service', async () => {
  const { put, address } = meshUnderTest();
  await put(slice());
  assert.equal(address(uidOfSlice('10.5.0.1')), null, 'its service is not known yet');
  await put(api, peerAuthentication('default', { mtls: { mode: 'STRICT' } }));
  const workload = address(uidOfSlice('10.5.0.1'));
  assert.deepEqual(portsOf(workload), { [keyOfService('api')]: [[443, 6443]] });
  const {
    name,
    networkMode,
    workloadType,
    workloadName,
    canonicalName,
    serviceAccount,
    status,
    authorizationPolicies,
  } = workload!;
  assert.deepEqual(
    { name, networkMode, workloadType, workloadName, canonicalName, serviceAccount, status, authorizationPolicies },
    {
      name: 'api-1',
      networkMode: 1,
      workloadType: 0,
      workloadName: '',
      canonicalName: '',
      serviceAccount: '',
      status: 0,
      authorizationPolicies: [],
    },
  );
  assert.equal(address(uidOfSlice('10.5.0.2')), null, 'only the first address of an endpoint');
});

for (const [name, more, wanted] of [
  ['not ready', { endpoints: [{ addresses: ['10.5.0.1'], conditions: { ready: false } }] }, 1],
  ['of unknown readiness', { endpoints: [{ addresses: ['10.5.0.1'] }] }, 0],
  [
    'that is a pod which is not known',
    { endpoints: [{ addresses: ['10.5.0.1'], targetRef: { kind: 'Pod', name: 'x' } }] },
    null,
  ],
  ['with an address that is none', { endpoints: [{ addresses: ['api.example.com'] }] }, null],
  ['that is a name', { addressType: 'FQDN' }, null],
  ['of no service', { metadata: { name: 'api-1', namespace: 'demo' } }, null],
] as const) {
  test(`an endpoint of a slice ${name}`, async () => {
    const { put, address } = meshUnderTest();
    await put(api, slice(more));
    assert.equal(address(uidOfSlice('10.5.0.1'))?.status ?? null, wanted);
  });
}

const remote = (name: string, value: string, type = 'IPAddress', port = 15008) =>
  ({
    kind: 'Gateway',
    metadata: { name, namespace: 'gateways', labels: { 'topology.istio.io/network': 'n2' } },
    spec: { gatewayClassName: 'istio-remote', listeners: [{ name: 'x', port, protocol: 'HBONE' }] },
    status: { addresses: [{ type, value }] },
  }) as unknown as Manifest;

for (const [type, value, gateway] of [
  ['IPAddress', '10.6.0.1', { hostname: null, address: { network: 'n2', address: '10.6.0.1' }, hboneMtlsPort: 15008 }],
  [
    'Hostname',
    'gw.example.com',
    { hostname: { namespace: 'gateways', hostname: 'gw.example.com' }, address: null, hboneMtlsPort: 15008 },
  ],
] as const) {
  test(`workloads of another network are reached through its gateway at an ${type}`, async () => {
    const { put, address, remove } = meshUnderTest();
    await put(workloadEntry('vm', { spec: { network: 'n2' } }), workloadEntry('near'), remote('west', value, type));
    assert.deepEqual(
      { hostname: null, address: null, ...(address(uidOfEntry('vm'))?.networkGateway as Json) },
      gateway,
    );
    assert.equal(address(uidOfEntry('near'))?.networkGateway, null);
    const itself = address(`NetworkGateway/n2/${value}/15008`);
    assert.deepEqual(
      [itself?.namespace, itself?.serviceAccount, itself?.network, itself?.clusterId],
      ['gateways', 'west-istio-remote', 'n2', ''],
    );
    await remove('Gateway', 'gateways/west');
    assert.equal(address(uidOfEntry('vm'))?.networkGateway, null);
    assert.equal(address(`NetworkGateway/n2/${value}/15008`), null);
  });
}

test('an object that comes to be of another revision is gone, and neither judged nor written to', async () => {
  const { mesh, put, policy, rejected } = meshUnderTest({ revision: 'blue' });
  const green = { labels: { 'istio.io/rev': 'green' } };
  const rules = { action: 'DENY', rules: [{}] };
  const pending = () => [...mesh.statuses.conditions()].map(({ key }) => key);
  await put(authorizationPolicy('p', rules), authorizationPolicy('q', rules));
  assert.deepEqual(pending(), ['demo/p', 'demo/q']);
  await put(authorizationPolicy('p', rules, green));
  assert.equal(policy('demo/p'), null);
  assert.deepEqual(pending(), ['demo/q']);
  await put(
    authorizationPolicy('q', { acton: 'DENY' }, green),
    workloadEntry('vm', { metadata: green, spec: { address: 7 } }),
    serviceEntry('out', { metadata: green, spec: { hosts: 7 } }),
    peerAuthentication('typo', { mtsl: {} }, green),
  );
  assert.equal(policy('demo/q'), null);
  assert.deepEqual(pending(), []);
  assert.deepEqual(rejected, []);
  await put(peerAuthentication('typo', { mtsl: {} }, { labels: {} }), authorizationPolicy('q', rules));
  assert.deepEqual(
    rejected.map(({ key }) => key),
    ['demo/typo'],
  );
  assert.notEqual(policy('demo/q'), null);
});

test('objects of another revision are not there', async () => {
  const { mesh, put } = meshUnderTest({ revision: 'blue' });
  const of = (rev: string) => ({ metadata: { labels: { app: 'x', 'istio.io/rev': rev } } });
  await put(
    workloadEntry('blue', of('blue')),
    workloadEntry('green', of('green')),
    workloadEntry('any'),
    workloadEntry('by-spec', { spec: { labels: { 'istio.io/rev': 'green' } } }),
    serviceEntry('green', of('green')),
    namespace('demo'),
  );
  assert.deepEqual(
    [...mesh.resources.addresses()].map(({ name }) => name).sort(),
    ['any', 'blue', 'by-spec'].map(uidOfEntry),
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadControlConfig } from '../../src/control/config.ts';
import { readVisibility } from '../../src/control/mesh/read-visibility.ts';
import { type Manifest, meshUnderTest } from './support/mesh-under-test.ts';
import { keyOfService, namespace, pod, service, serviceEntry, uidOf } from './support/objects.ts';

type Json = Record<string, unknown>;
type Annotations = Record<string, string>;

async function serviceOf(object: Manifest, key: string, ...others: Manifest[]): Promise<Json | null> {
  const { put, address, rejected } = meshUnderTest();
  await put(...others, object);
  assert.deepEqual(rejected, []);
  return address(key);
}

for (const [name, more, wanted] of [
  [
    'plain',
    {},
    {
      name: 'web',
      namespace: 'demo',
      hostname: 'web.demo.svc.cluster.local',
      addresses: [{ network: '', address: '10.1.0.1' }],
      ports: [{ servicePort: 80, targetPort: 8080, appProtocol: 1 }],
      subjectAltNames: [],
      waypoint: null,
      loadBalancing: null,
      ipFamilies: 0,
      canonical: true,
      visibility: 0,
    },
  ],
  ['of type ExternalName', { spec: { type: 'ExternalName', externalName: 'example.com' } }, null],
  [
    'of type LoadBalancer',
    { spec: { type: 'LoadBalancer', externalIPs: ['192.0.2.9'] } },
    { addresses: [{ network: '', address: '10.1.0.1' }] },
  ],
  ['without addresses', { spec: { clusterIPs: ['None'] } }, { addresses: [] }],
  ['with an empty address', { spec: { clusterIPs: undefined, clusterIP: '' } }, { addresses: [] }],
  [
    'with one address',
    { spec: { clusterIPs: undefined, clusterIP: '10.1.0.7' } },
    { addresses: [{ network: '', address: '10.1.0.7' }] },
  ],
  [
    'of both families',
    { spec: { clusterIPs: ['10.1.0.1', 'fd01::1'], ipFamilies: ['IPv4', 'IPv6'] } },
    { addresses: ['10.1.0.1', 'fd01::1'].map((address) => ({ network: '', address })), ipFamilies: 3 },
  ],
  ['of IPv4', { spec: { ipFamilies: ['IPv4'] } }, { ipFamilies: 1 }],
  ['of IPv6', { spec: { ipFamilies: ['IPv6'] } }, { ipFamilies: 2 }],
  // istiod drops the service, which is the start of a crash there.
  [
    'with an address that is none',
    { spec: { clusterIPs: ['10.1.0.1', '10.1'] } },
    { addresses: [{ network: '', address: '10.1.0.1' }] },
  ],
  [
    'with a named target and UDP',
    {
      spec: {
        ports: [
          { name: 'a', port: 80, targetPort: 'web' },
          { name: 'dns', port: 53, protocol: 'UDP', targetPort: 53 },
        ],
      },
    },
    {
      ports: [
        { servicePort: 80, targetPort: 0, appProtocol: 0 },
        { servicePort: 53, targetPort: 53, appProtocol: 0 },
      ],
    },
  ],
] as [string, Json, Json | null][]) {
  test(`a Service ${name}`, async () => {
    const message = await serviceOf(service('web', more), keyOfService('web'));
    if (wanted === null) assert.equal(message, null);
    else for (const [field, value] of Object.entries(wanted)) assert.deepEqual(message?.[field], value, field);
  });
}

const DISTRIBUTION = 'networking.istio.io/traffic-distribution';
const ZONE = { routingPreference: [6, 1, 2], mode: 2, healthPolicy: 0 };
const NODE = { routingPreference: [6, 1, 2, 3, 4], mode: 2, healthPolicy: 0 };
for (const [spec, annotations, ofNamespace, wanted] of [
  [
    { internalTrafficPolicy: 'Local', trafficDistribution: 'PreferClose' },
    {},
    {},
    { routingPreference: [4], mode: 1, healthPolicy: 0 },
  ],
  [{ trafficDistribution: 'PreferClose' }, {}, {}, ZONE],
  [{ trafficDistribution: 'PreferSameZone' }, { [DISTRIBUTION]: 'PreferSameNode' }, {}, ZONE],
  [{ trafficDistribution: 'PreferSameNode' }, {}, {}, NODE],
  [{ trafficDistribution: 'Unknown' }, { [DISTRIBUTION]: 'prefersamenode' }, {}, NODE],
  [{}, { [DISTRIBUTION]: 'PREFERCLOSE' }, {}, ZONE],
  [{}, { [DISTRIBUTION]: 'constructor' }, { [DISTRIBUTION]: 'PreferClose' }, null],
  [{}, {}, { [DISTRIBUTION]: 'PreferClose' }, ZONE],
  [{}, { [DISTRIBUTION]: 'PreferSameNode' }, { [DISTRIBUTION]: 'PreferClose' }, NODE],
  [{ publishNotReadyAddresses: true }, {}, {}, { routingPreference: [], mode: 0, healthPolicy: 1 }],
  [{ publishNotReadyAddresses: true, trafficDistribution: 'PreferClose' }, {}, {}, { ...ZONE, healthPolicy: 1 }],
] as [Json, Annotations, Annotations, Json | null][]) {
  test(`load balancing of ${JSON.stringify([spec, annotations, ofNamespace])}`, async () => {
    const { put, address } = meshUnderTest();
    await put(
      namespace('demo', {}, ofNamespace),
      service('web', { metadata: { annotations }, spec }),
      service('plain', { spec: { trafficDistribution: 'PreferClose' } }),
    );
    assert.deepEqual(address(keyOfService('web'))?.loadBalancing, wanted);
    assert.deepEqual(address(keyOfService('plain'))?.loadBalancing, ZONE, 'what one asks for is not what another gets');
  });
}

for (const [port, wanted] of [
  [{ name: 'http' }, 1],
  [{ name: 'HTTP-web' }, 1],
  [{ name: 'http2' }, 2],
  [{ name: 'http2-x' }, 2],
  [{ name: 'grpc-x' }, 3],
  [{ name: 'grpc-web' }, 0],
  [{ name: 'grpc-web-x' }, 0],
  [{ name: 'tcp' }, 4],
  [{ name: 'tls-x' }, 5],
  [{ name: 'https' }, 5],
  [{ name: 'constructor' }, 0],
  [{ name: 'x', port: 3306 }, 4],
  [{ name: 'http', port: 3306 }, 1],
  [{ name: 'http', protocol: 'UDP' }, 0],
  [{ name: 'tcp', appProtocol: 'http' }, 1],
  [{ name: 'tcp', appProtocol: 'kubernetes.io/h2c' }, 2],
  [{ name: 'tcp', appProtocol: 'kubernetes.io/ws' }, 1],
  [{ name: 'tcp', appProtocol: 'kubernetes.io/wss' }, 5],
  [{ name: 'tcp', appProtocol: 'example.com/x' }, 0],
] as const) {
  test(`application protocol of ${JSON.stringify(port)}`, async () => {
    const message = await serviceOf(service('web', { spec: { ports: [{ port: 80, ...port }] } }), keyOfService('web'));
    assert.equal((message!.ports as { appProtocol: number }[])[0]!.appProtocol, wanted);
  });
}

const KEY = 'demo/ext.example.com';
for (const [name, spec, addresses] of [
  ['addresses', { addresses: ['10.7.0.1', 'fd07::1'] }, [['10.7.0.1'], ['fd07::1']]],
  [
    'blocks',
    { addresses: ['10.7.1.9/24', 'fd07::1/64'] },
    [
      ['10.7.1.0', 24],
      ['fd07::', 64],
    ],
  ],
  ['blocks of one address', { addresses: ['10.7.0.1/32', 'fd07::1/128'] }, [['10.7.0.1'], ['fd07::1']]],
  ['the block of everything', { addresses: ['0.0.0.0/0'] }, [['0.0.0.0', 0]]],
  ['one address that is none', { addresses: ['10.7.0.1', '10.7.0'] }, null],
] as [string, Json, unknown[][] | null][]) {
  test(`a ServiceEntry with ${name}`, async () => {
    const message = await serviceOf(serviceEntry('ext', { spec }), KEY);
    const wanted = addresses?.map(([address, length]) => ({
      network: '',
      address,
      ...(length === undefined ? {} : { length }),
    }));
    assert.deepEqual(message?.addresses, wanted);
  });
}

test('a ServiceEntry says its ports, names and load balancing', async () => {
  const ports = [
    { number: 80, name: 'a', protocol: 'http' },
    { number: 443, name: 'b', protocol: 'HTTPS', targetPort: 8443 },
    { number: 1, name: 'c', protocol: 'MONGO' },
  ];
  const message = await serviceOf(
    serviceEntry('ext', { spec: { ports, subjectAltNames: ['x', 'y'], resolution: 'NONE' } }),
    KEY,
  );
  assert.deepEqual(message?.ports, [
    { servicePort: 80, targetPort: 80, appProtocol: 1 },
    { servicePort: 443, targetPort: 8443, appProtocol: 5 },
    { servicePort: 1, targetPort: 1, appProtocol: 0 },
  ]);
  assert.deepEqual(message?.subjectAltNames, ['x', 'y']);
  assert.deepEqual(message?.loadBalancing, { routingPreference: [], mode: 3, healthPolicy: 1 });
  assert.deepEqual([message?.name, message?.hostname, message?.canonical], ['ext', 'ext.example.com', true]);
});

const allocated = {
  addresses: [
    { value: '240.240.0.1', host: 'ext.example.com' },
    { value: '240.240.0.9', host: 'other' },
  ],
};
for (const [name, more, wanted] of [
  ['is used', {}, ['240.240.0.1']],
  ['is not used without resolution', { spec: { resolution: 'NONE' } }, []],
  ['is not used beside given addresses', { spec: { addresses: ['10.7.0.1'] } }, ['10.7.0.1']],
  [
    'is not used by who does not want it',
    { metadata: { labels: { 'networking.istio.io/enable-autoallocate-ip': 'False' } } },
    [],
  ],
] as [string, Json, string[]][]) {
  test(`an allocated address ${name}`, async () => {
    const message = await serviceOf(serviceEntry('ext', { ...more, status: allocated }), KEY);
    assert.deepEqual(
      (message!.addresses as { address: string }[]).map(({ address }) => address),
      wanted,
    );
  });
}

const entry = (of: string, created: string, more: Json = {}) =>
  serviceEntry(of, {
    metadata: { creationTimestamp: `2026-01-01T00:00:0${created}Z` },
    spec: { hosts: ['shared.org'] },
    ...more,
  });
const inOther = (manifest: Manifest): Manifest => ({
  ...manifest,
  metadata: { ...manifest.metadata, namespace: 'other' },
});

test('of two entries for one host of a namespace the older is published, and only its endpoints', async () => {
  const { put, remove, address } = meshUnderTest();
  const endpoint = (ip: string) => ({ spec: { hosts: ['shared.org'], endpoints: [{ address: ip }] } });
  const uid = (of: string, ip: string) => `Kubernetes/networking.istio.io/ServiceEntry/demo/${of}/${ip}`;
  await put(entry('young', '2', endpoint('10.0.0.2')), entry('old', '1', endpoint('10.0.0.1')));
  assert.equal(address('demo/shared.org')?.name, 'old');
  assert.notEqual(address(uid('old', '10.0.0.1')), null);
  assert.equal(address(uid('young', '10.0.0.2')), null);
  await remove('ServiceEntry', 'demo/old');
  assert.equal(address('demo/shared.org')?.name, 'young');
  assert.notEqual(address(uid('young', '10.0.0.2')), null);
});

test('a Service is published before an older entry for its name', async () => {
  const { put, remove, address } = meshUnderTest();
  const spec = {
    hosts: ['web.demo.svc.cluster.local'],
    workloadSelector: { labels: { app: 'web' } },
    ports: [{ number: 99, name: 'x', protocol: 'TCP' }],
  };
  await put(serviceEntry('ext', { metadata: { creationTimestamp: '2020-01-01T00:00:00Z' }, spec }), pod('web'));
  const port = () =>
    (address(uidOf('web'))!.services as Record<string, { ports: { servicePort: number }[] }>)[keyOfService('web')]!
      .ports[0]!.servicePort;
  assert.equal(port(), 99);
  await put(service('web'));
  assert.deepEqual([address(keyOfService('web'))?.name, port()], ['web', 80]);
  await remove('Service', 'demo/web');
  assert.deepEqual([address(keyOfService('web'))?.name, port()], ['ext', 99]);
});

test('over all namespaces one of a name is canonical: a Service, else the oldest', async () => {
  const { put, remove, address, changes } = meshUnderTest();
  const canonical = () => ['demo', 'other', 'third'].map((name) => address(`${name}/shared.org`)?.canonical ?? null);
  await put(entry('a', '3'), inOther(entry('b', '2')));
  assert.deepEqual(canonical(), [false, true, null]);
  changes();
  await put({ ...entry('c', '1'), metadata: { ...entry('c', '1').metadata, namespace: 'third' } });
  assert.deepEqual(canonical(), [false, false, true]);
  assert.deepEqual(changes().addresses, ['other/shared.org', 'third/shared.org']);
  await remove('ServiceEntry', 'third/c');
  await remove('ServiceEntry', 'other/b');
  assert.deepEqual(canonical(), [true, null, null]);

  await put(
    inOther(
      serviceEntry('early', {
        metadata: { creationTimestamp: '2020-01-01T00:00:00Z' },
        spec: { hosts: ['web.demo.svc.cluster.local'] },
      }),
    ),
  );
  assert.equal(address('other/web.demo.svc.cluster.local')?.canonical, true);
  await put(service('web'));
  assert.deepEqual(
    [address(keyOfService('web'))?.canonical, address('other/web.demo.svc.cluster.local')?.canonical],
    [true, false],
  );
});

test('entries are as visible as the labels of their namespace say', async () => {
  const { mesh, put, address } = meshUnderTest({
    serviceEntryVisibility: await readVisibility(`
      defaultVisibility: PUBLIC
      policies:
        - visibility: NAMESPACE
          matchingRules: [{ namespaceSelector: { matchLabels: { seen: here } } }]
        - visibility: NONE
          matchingRules:
            - namespaceSelector: { matchExpressions: [{ key: seen, operator: Exists }] }
            - namespaceSelector: { matchExpressions: [{ key: seen, operator: In, values: [nowhere] }] }
    `),
  });
  const conditions = () =>
    [...mesh.statuses.conditions()].flatMap(({ conditions }) => conditions.map(({ reason }) => reason));
  await put(namespace('demo', { seen: 'here' }), entry('a', '1'), inOther(entry('b', '2')));
  assert.deepEqual([address('demo/shared.org')?.visibility, address('demo/shared.org')?.canonical], [1, false]);
  assert.deepEqual([address('other/shared.org')?.visibility, address('other/shared.org')?.canonical], [0, true]);
  assert.deepEqual(conditions(), ['Namespace', 'Public']);
  await put(namespace('demo', { seen: 'nowhere' }));
  assert.equal(address('demo/shared.org'), null);
  await put(namespace('demo'));
  assert.deepEqual([address('demo/shared.org')?.visibility, address('demo/shared.org')?.canonical], [0, true]);
  assert.equal(address('other/shared.org')?.canonical, false);
});

for (const [text, whileUnknown] of [
  ['defaultVisibility: NONE', null],
  ['defaultVisibility: NAMESPACE', 1],
  ['defaultVisibility: PUBLIC', 0],
] as const) {
  const publicUnlessClosed =
    'policies: [{ matchingRules: [{ namespaceSelector: { matchExpressions: [{ key: closed, operator: DoesNotExist }] } }] }]';
  test(`a namespace that is still to come is as narrow as the setting can be: ${text}`, async () => {
    const { put, remove, address } = meshUnderTest({
      serviceEntryVisibility: await readVisibility(`{ ${text}, ${publicUnlessClosed} }`),
      namespacesHaveObjects: true,
    });
    const seen = () => address('demo/shared.org')?.visibility ?? null;
    await put(entry('a', '1'));
    assert.equal(seen(), whileUnknown);
    await put(namespace('demo'));
    assert.equal(seen(), 0);
    await put(namespace('demo', { closed: '' }));
    assert.equal(seen(), whileUnknown);
    await remove('Namespace', 'demo');
    assert.equal(seen(), whileUnknown);
  });
}

const rule = (expression: string) =>
  `policies: [{ matchingRules: [{ namespaceSelector: { matchExpressions: [${expression}] } }] }]`;

const misread: readonly [string, RegExp][] = [
  ['- a', /the object must be a mapping/],
  ['{', /it is not YAML/],
  ['default: NONE', /default is not known; known are defaultVisibility, policies/],
  ['defaultVisibility: none', /defaultVisibility must be one of PUBLIC, NAMESPACE, NONE, not "none"/],
  ['policies: [{ visibility: NONE, rules: [] }]', /policies\[0\]\.rules is not known/],
  ['policies: [{ matchingRules: [{ hostnameSuffix: org }] }]', /matchingRules\[0\]\.hostnameSuffix is not known/],
  ['policies: [{ matchingRules: [{}] }]', /namespaceSelector must be a selector/],
  ['policies: [{ matchingRules: [{ namespaceSelector: { labels: {} } }] }]', /namespaceSelector\.labels is not known/],
  ['defaultVisibility: toString', /defaultVisibility must be one of PUBLIC, NAMESPACE, NONE, not "toString"/],
  [rule('{ key: a, operator: NotIn, value: [b] }'), /matchExpressions\[0\]\.value is not known/],
  [rule('{ kye: a, operator: DoesNotExist }'), /matchExpressions\[0\]\.kye is not known/],
  [rule('{ operator: DoesNotExist }'), /matchExpressions\[0\]\.key must be the name of a label/],
  [rule('{ key: a, operator: NotIn, values: [] }'), /\.values must be at least one value/],
  [rule('{ key: a, operator: In }'), /\.values must be at least one value/],
  [rule('{ key: a, operator: Exists, values: [b] }'), /\.values must be left out, not \["b"\]/],
  [rule('{ key: a, values: [b] }'), /\.operator must be one of In, NotIn, Exists, DoesNotExist/],
];

for (const [text, problem] of misread) {
  test(`who sees entries cannot be ${text}`, () => assert.rejects(readVisibility(text), problem));
}

test('settings that cannot be read name what is wrong in them', async () => {
  const env = { CULVERT_CONTROL_OBJECTS_DIR: '/objects', CULVERT_SERVICE_ENTRY_VISIBILITY: 'defaultVisibility: SOME' };
  await assert.rejects(loadControlConfig(env), /CULVERT_SERVICE_ENTRY_VISIBILITY.*one of PUBLIC, NAMESPACE, NONE/s);
  const { serviceEntryVisibility } = await loadControlConfig({
    ...env,
    CULVERT_SERVICE_ENTRY_VISIBILITY: '{"defaultVisibility":"NONE"}',
  });
  assert.deepEqual(serviceEntryVisibility, { rules: [], otherwise: 'None' });
});

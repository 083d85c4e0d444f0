import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CulvertError } from '../../src/errors.ts';
import { loadLocal } from '../../src/state/local-file.ts';

async function complaints(text: string): Promise<string[]> {
  try {
    await loadLocal(text, 'mesh.yaml');
    return [];
  } catch (error) {
    assert.ok(error instanceof CulvertError, `threw ${error}`);
    assert.equal(error.code, 'LOCAL_CONFIG_INVALID');
    return error.message.split('\n');
  }
}

const workload = (field: string) => `workloads:
- uid: u
  namespace: n
  workloadIps: []
  services: {}
  ${field}
`;
const service = (field: string, vips = '[]') => `services:
- name: s
  namespace: n
  hostname: h
  vips: ${vips}
  ports: {}
  ${field}
`;
const policy = (match: string) => `policies:
- name: p
  namespace: n
  scope: Global
  action: Deny
  dryRun: false
  rules: [[[${match}]]]
`;

const mistakes: readonly [what: string, text: string, complaint: string][] = [
  ['a list at the top', '- 1', 'mesh.yaml:1:1: a list is given; accepted: a map with workloads, services, policies'],
  [
    'an unknown section',
    'workload: []',
    'mesh.yaml:1:1: workload: unknown field; accepted: workloads, services, policies',
  ],
  ['a section that is no list', 'services: {a: b}', 'mesh.yaml:1:11: services: a map is given; accepted: a list'],
  [
    'a section with nothing behind it',
    'workloads: []\npolicies:\n',
    'mesh.yaml:2:10: policies: nothing is given; accepted: a list',
  ],
  ['an unknown tag', 'workloads: !x []', 'mesh.yaml:1:12: Unresolved tag: !x'],
  ['a key twice', 'workloads: []\nworkloads: []', 'mesh.yaml:2:1: Map keys must be unique'],
  [
    'a second document, which may hold the policies',
    'workloads: []\n---\npolicies: []\n',
    'mesh.yaml:2:1: a second document begins; only one is accepted',
  ],
  [
    'a first document that says nothing',
    '---\n---\nworkloads: []\n',
    'mesh.yaml:2:1: a second document begins; only one is accepted',
  ],
  [
    'a third document, behind one that says nothing',
    'workloads: []\n---\n# more\n---\npolicies: []\n',
    'mesh.yaml:2:1: a second document begins; only one is accepted',
  ],
  ['an alias to itself', 'workloads: &a [*a]', 'mesh.yaml:1:16: alias without end or target'],
  [
    'a number for text',
    workload('name: 7'),
    'mesh.yaml:6:9: workloads[0].name: 7 is given; accepted: text, which here needs quotes',
  ],
  [
    'an unknown word',
    workload('protocol: HBON'),
    'mesh.yaml:6:13: workloads[0].protocol: "HBON" is given; accepted: HBONE, TCP',
  ],
  [
    'text for a flag',
    workload('nativeTunnel: "yes"'),
    'mesh.yaml:6:17: workloads[0].nativeTunnel: "yes" is given; accepted: true, false',
  ],
  [
    'a fraction',
    workload('capacity: 1.5'),
    'mesh.yaml:6:13: workloads[0].capacity: 1.5 is given; accepted: a whole number from 0 to 4294967295',
  ],
  ['nothing for text', workload('node:'), 'mesh.yaml:6:8: workloads[0].node: nothing is given; accepted: text'],
  [
    'a gateway without address',
    workload('waypoint: {destination: wp, hboneMtlsPort: 1}'),
    'mesh.yaml:6:27: workloads[0].waypoint.destination: "wp" is given; accepted: network/IP or namespace/hostname',
  ],
  [
    'a gateway without port',
    workload('networkGateway: {destination: /10.0.0.1}'),
    'mesh.yaml:6:19: workloads[0].networkGateway.hboneMtlsPort: is required and missing',
  ],
  [
    'a bad port',
    workload('applicationTunnel: {protocol: PROXY, port: 65536}'),
    'mesh.yaml:6:46: workloads[0].applicationTunnel.port: 65536 is given; accepted: a whole number from 1 to 65535',
  ],
  [
    'a bad address',
    'workloads: [{namespace: n, services: {}, workloadIps: [10.0.0]}]',
    'mesh.yaml:1:56: workloads[0].workloadIps[0]: "10.0.0" is given; accepted: an IP address',
  ],
  [
    'a bad service key',
    'workloads: [{namespace: n, services: {web: {}}, workloadIps: []}]',
    'mesh.yaml:1:39: workloads[0].services["web"]: the key is not accepted; accepted: namespace/hostname',
  ],
  [
    'a bad service port',
    'workloads: [{namespace: n, services: {n/web: {http: 80}}, workloadIps: []}]',
    'mesh.yaml:1:47: workloads[0].services["n/web"]["http"]: the key is not accepted; accepted: ports from 1 to 65535',
  ],
  [
    'a missing field',
    'workloads:\n- namespace: n\n  services: {}',
    'mesh.yaml:2:3: workloads[0].workloadIps: is required and missing',
  ],
  [
    'a uid twice',
    `${workload('')}- {uid: u, namespace: n, workloadIps: [], services: {}}`,
    'mesh.yaml:7:3: workloads[1]: "u" is already in this list',
  ],
  [
    'a VIP without network',
    service('', '[10.0.0.1]'),
    'mesh.yaml:5:10: services[0].vips[0]: "10.0.0.1" is given; accepted: network/IP, where the network may be empty as in /10.96.0.10',
  ],
  [
    'half a load balancer',
    service('loadBalancer: {mode: Strict, routingPreferences: []}'),
    'mesh.yaml:7:17: services[0].loadBalancer.healthPolicy: is required and missing',
  ],
  [
    'a bad block',
    service('cidrVips: [{network: "", cidr: 10.0.0.0/33}]'),
    'mesh.yaml:7:34: services[0].cidrVips[0].cidr: "10.0.0.0/33" is given; accepted: an IP address, or a block as 10.0.0.0/8',
  ],
  [
    'an unknown match field',
    policy('{sourceIp: []}'),
    'mesh.yaml:7:14: policies[0].rules[0][0][0].sourceIp: unknown field; accepted: namespaces, notNamespaces, serviceAccounts, notServiceAccounts, principals, notPrincipals, sourceIps, notSourceIps, destinationIps, notDestinationIps, destinationPorts, notDestinationPorts',
  ],
  [
    'a match field left blank',
    policy('{sourceIps: , principals: [{Presence: []}]}'),
    'mesh.yaml:7:25: policies[0].rules[0][0][0].sourceIps: nothing is given; accepted: a list',
  ],
  [
    'a match of no kind',
    policy('{principals: [{}]}'),
    'mesh.yaml:7:27: policies[0].rules[0][0][0].principals[0]: a map is given; accepted: {Exact: text}, {Prefix: text}, {Suffix: text}, {Presence: []}',
  ],
  [
    'a match of two kinds',
    policy('{principals: [{Exact: a, Prefix: b}]}'),
    'mesh.yaml:7:27: policies[0].rules[0][0][0].principals[0]: a map is given; accepted: {Exact: text}, {Prefix: text}, {Suffix: text}, {Presence: []}',
  ],
  [
    'a presence with a value',
    policy('{principals: [{Presence: [a]}]}'),
    'mesh.yaml:7:38: policies[0].rules[0][0][0].principals[0].Presence: a list is given; accepted: []',
  ],
  [
    'a port out of range',
    policy('{destinationPorts: [70000]}'),
    'mesh.yaml:7:33: policies[0].rules[0][0][0].destinationPorts[0]: 70000 is given; accepted: a whole number from 0 to 65535',
  ],
  [
    'half an account',
    policy('{serviceAccounts: [{namespace: n}]}'),
    'mesh.yaml:7:32: policies[0].rules[0][0][0].serviceAccounts[0].serviceAccount: is required and missing',
  ],
  [
    'a policy without dryRun',
    'policies: [{name: p, namespace: n, scope: Global, action: Deny, rules: []}]',
    'mesh.yaml:1:12: policies[0].dryRun: is required and missing',
  ],
];

for (const [what, text, complaint] of mistakes) {
  test(`${what} is reported with place, field, what is given and what is accepted`, async () => {
    assert.deepEqual(await complaints(text), [complaint]);
  });
}

test('all mistakes of a file are reported at once, in the order of the file', async () => {
  const text = `${workload('protocol: x')}${policy('{destinationPorts: [x]}')}${service('visibility: x')}`;
  const places = (await complaints(text)).map((line) => line.split(': ')[1]);
  assert.deepEqual(places, [
    'workloads[0].protocol',
    'policies[0].rules[0][0][0].destinationPorts[0]',
    'services[0].visibility',
  ]);
});

test('of very many mistakes the first 20 are shown and the others counted', async () => {
  const lines = await complaints(`policies: [${'x, '.repeat(99)}x]`);
  assert.equal(lines.length, 21);
  assert.equal(lines[20], 'and 80 more');
});

test('a value that is very long is cut in the message', async () => {
  const [line] = await complaints(workload(`protocol: ${'x'.repeat(5000)}`));
  assert.ok(line!.length < 200);
});

test('aliases of aliases cannot ask for unbounded memory', async () => {
  const levels = Array.from({ length: 12 }, (_, level) =>
    level === 0 ? 'a0: &a0 [x]' : `a${level}: &a${level} [${`*a${level - 1}, `.repeat(10)}]`,
  );
  const lines = await complaints(levels.join('\n'));
  assert.match(lines[0]!, /aliases expand to too many values/);
});

test('an alias stands for the value it names', async () => {
  const { workloads } = await loadLocal(
    'workloads:\n- {uid: a, namespace: &n x, workloadIps: &i [10.0.0.1], services: {}}\n' +
      '- {uid: b, namespace: *n, workloadIps: *i, services: {}}',
    'mesh.yaml',
  );
  assert.deepEqual([workloads[1]?.workload.namespace, workloads[1]?.workload.workloadIps], ['x', ['10.0.0.1']]);
});

for (const [text, begin] of [
  ['', ''],
  ['# nothing yet\n', ''],
  ['workloads: []\nservices: []\npolicies: []\n', 'w'],
  ['{}', '{'],
  ['--- # now\n{}', '{'],
]) {
  test(`${JSON.stringify(text)} is an empty mesh`, async () => {
    assert.deepEqual(await loadLocal(text!, 'mesh.yaml'), { workloads: [], services: [], policies: [], begin });
  });
}

test('addresses and blocks are made canonical', async () => {
  const { workloads, services, policies } = await loadLocal(
    `workloads: [{namespace: n, services: {}, workloadIps: ["::ffff:10.0.0.1", "2001:DB8::0"]}]
services: [{name: s, namespace: n, hostname: h, ports: {80: 0}, vips: ["n1/2001:DB8:0::1"], cidrVips: [{network: "", cidr: 10.1.2.3/16}]}]
${policy('{sourceIps: ["10.9.9.9/8", "192.0.2.1"]}')}`,
    'mesh.yaml',
  );
  assert.deepEqual(workloads[0]?.workload.workloadIps, ['10.0.0.1', '2001:db8::']);
  assert.deepEqual(services[0]?.vips, ['n1/2001:db8::1']);
  assert.deepEqual(services[0]?.cidrVips, [{ network: '', cidr: '10.1.0.0/16' }]);
  assert.deepEqual(services[0]?.ports, { 80: 0 });
  assert.deepEqual(policies[0]?.[1].rules[0]?.[0]?.[0]?.sourceIps, ['10.0.0.0/8', '192.0.2.1/32']);
});

test('whatever the text, it is read or refused with a CulvertError', async () => {
  const scraps = fc.constantFrom(
    'workloads',
    'policies',
    'rules',
    ':',
    '- ',
    '\n',
    '  ',
    '[',
    ']',
    '{',
    '}',
    '&a',
    '*a',
    '!t',
    '"',
    "'",
    '10.0.0.1',
    '80',
    '~',
    '|',
    '>',
    '%',
    '\t',
    '\u0000',
    '__proto__',
    'services',
    'ports',
    '---',
  );
  const anyText = fc.oneof(
    fc.string(),
    fc.array(scraps).map((parts) => parts.join('')),
    fc.json(),
  );
  await fc.assert(
    fc.asyncProperty(anyText, async (text) => {
      await complaints(text);
    }),
    { numRuns: 1000 },
  );
});

test('a text nested beyond the stack is refused like any other', async () => {
  assert.ok((await complaints('['.repeat(50_000))).length > 0);
});

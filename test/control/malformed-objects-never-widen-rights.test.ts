import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentView, letsIn } from './support/agent-view.ts';
import { type Manifest, meshUnderTest } from './support/mesh-under-test.ts';
import {
  authorizationPolicy,
  merged,
  peerAuthentication,
  pod,
  service,
  serviceEntry,
  uidOf,
  waypoint,
} from './support/objects.ts';

type Json = Record<string, unknown>;

const matchLabels = { app: 'web' };
const good = {
  selector: { matchLabels },
  action: 'ALLOW',
  rules: [{ from: [{ source: { namespaces: ['friends'] } }] }],
};

/** [what is wrong, spec, what is said of it] */
const malformed: [string, unknown, RegExp][] = [
  ['a spec that is none', 'text', /spec must be a mapping/],
  ['an unknown field', { ...good, rule: [] }, /spec\.rule is not known; known are .*rules/],
  ['an unknown action', { ...good, action: 'PERMIT' }, /spec\.action must be one of ALLOW, DENY.*"PERMIT"/],
  ['rules that are no list', { ...good, rules: {} }, /spec\.rules must be a list/],
  ['a rule that is none', { ...good, rules: ['x'] }, /spec\.rules\[0\] must be a mapping/],
  ['an unknown field of a rule', { ...good, rules: [{ unless: [] }] }, /spec\.rules\[0\]\.unless is not known/],
  [
    'a source without a source',
    { ...good, rules: [{ from: [{}] }] },
    /from\[0\]\.source must be one or more of principals/,
  ],
  [
    'an empty source',
    { ...good, rules: [{ from: [{ source: { principals: [] } }] }] },
    /must be one or more of principals/,
  ],
  [
    'an unknown field of a source',
    { ...good, rules: [{ from: [{ source: { namespace: ['a'] } }] }] },
    /source\.namespace is not known/,
  ],
  [
    'an operation without an operation',
    { ...good, rules: [{ to: [{}] }] },
    /to\[0\]\.operation must be one or more of hosts/,
  ],
  [
    'a port that is none',
    { ...good, rules: [{ to: [{ operation: { notPorts: ['http'] } }] }] },
    /notPorts\[0\] must be a port.*"http"/,
  ],
  [
    'a port out of range',
    { ...good, rules: [{ to: [{ operation: { ports: ['65536'] } }] }] },
    /ports\[0\] must be a port/,
  ],
  [
    'a port as a number',
    { ...good, rules: [{ to: [{ operation: { ports: [80] } }] }] },
    /ports\[0\] must be a text.*80/,
  ],
  [
    'an address that is none',
    { ...good, rules: [{ from: [{ source: { notIpBlocks: ['10.0.0.0/33'] } }] }] },
    /notIpBlocks\[0\] must be an address/,
  ],
  [
    'an empty value',
    { ...good, rules: [{ from: [{ source: { namespaces: [''] } }] }] },
    /namespaces\[0\] must be a text that is not empty/,
  ],
  [
    'a rule with nothing behind its dash',
    { ...good, rules: [null] },
    /spec\.rules\[0\] must be a rule \(\{\} for one that matches everything\), not null/,
  ],
  [
    'a value that is null',
    { ...good, rules: [{ from: [{ source: { namespaces: [null] } }] }] },
    /namespaces\[0\] must be a text that is not empty/,
  ],
  ['a condition without a key', { ...good, rules: [{ when: [{ values: ['x'] }] }] }, /when\[0\]\.key must be/],
  [
    'a condition without values',
    { ...good, rules: [{ when: [{ key: 'source.ip' }] }] },
    /when\[0\] must be a condition with values/,
  ],
  [
    'a condition with an address that is none',
    { ...good, rules: [{ when: [{ key: 'source.ip', notValues: ['x'] }] }] },
    /notValues\[0\] must be an address/,
  ],
  [
    'a condition with a port that is none',
    { ...good, rules: [{ when: [{ key: 'destination.port', values: ['x'] }] }] },
    /values\[0\] must be a port/,
  ],
];

const policyOf = (spec: unknown): Manifest => ({
  kind: 'AuthorizationPolicy',
  metadata: { name: 'p', namespace: 'demo' },
  spec,
});
const friend = { sourceIdentity: 'spiffe://cluster.local/ns/friends/sa/x' };
const stranger = { sourceIdentity: 'spiffe://cluster.local/ns/strangers/sa/x' };

for (const [name, spec, reason] of malformed) {
  test(`an AuthorizationPolicy with ${name} leaves the one before in force, or else lets nobody in`, async () => {
    const { mesh, put, rejected } = meshUnderTest();
    await put(pod('web'), pod('other'), policyOf(good));
    await put(policyOf(spec));
    assert.equal(rejected.length, 1);
    assert.match(rejected[0]!.reason, reason);
    const agent = agentView(mesh.resources);
    assert.deepEqual([letsIn(agent, uidOf('web'), friend), letsIn(agent, uidOf('web'), stranger)], [true, false]);

    const restarted = meshUnderTest();
    await restarted.put(pod('web'), pod('other'), policyOf(spec));
    const without = agentView(restarted.mesh.resources);
    assert.deepEqual([letsIn(without, uidOf('web'), friend), letsIn(without, uidOf('web'), stranger)], [false, false]);
    // Whom it selects can be told unless its spec is no mapping.
    assert.equal(letsIn(without, uidOf('other')), typeof spec === 'object');
    await restarted.put(policyOf(good));
    const corrected = agentView(restarted.mesh.resources);
    assert.deepEqual(
      [letsIn(corrected, uidOf('web'), friend), letsIn(corrected, uidOf('web'), stranger)],
      [true, false],
    );
  });
}

for (const metadata of [
  { labels: { version: 1 } },
  { labels: 'x' },
  { creationTimestamp: 5 },
  { generation: 'x' },
  { annotations: 'x' },
]) {
  test(`a policy with metadata ${JSON.stringify(metadata)} lets nobody in either`, async () => {
    for (const [policy, caller] of [
      [authorizationPolicy('p', { action: 'DENY', rules: [{}] }, metadata), friend],
      [peerAuthentication('q', { mtls: { mode: 'STRICT' } }, metadata), { sourceIdentity: null }],
    ] as const) {
      const { mesh, put } = meshUnderTest();
      await put(pod('web'), policy);
      assert.equal(letsIn(agentView(mesh.resources), uidOf('web'), caller), false, policy.kind);
    }
  });
}

test('whom a malformed policy selects is not guessed', async () => {
  for (const selector of [{ matchExpressions: [] }, { matchLabels: { app: 1 } }, 'web', { matchLabels: ['web'] }]) {
    const { mesh, put, rejected } = meshUnderTest();
    await put(pod('web'), pod('far', { metadata: { namespace: 'other' } }), policyOf({ ...good, selector }));
    assert.match(rejected[0]!.reason, /spec\.selector/);
    const agent = agentView(mesh.resources);
    assert.equal(letsIn(agent, uidOf('web'), friend), false, 'its namespace');
    assert.equal(letsIn(agent, 'Kubernetes//Pod/other/far', friend), true, 'no other');
  }
});

test('a malformed policy that is for waypoints or for nobody stands in for nothing', async () => {
  for (const more of [{ targetRefs: [{ name: 'x' }] }, { action: 'AUDIT' }, { action: 'CUSTOM' }]) {
    const { mesh, put, rejected } = meshUnderTest();
    await put(pod('web'), policyOf({ ...good, ...more, rules: 'x' }));
    assert.equal(rejected.length, 1);
    assert.ok(letsIn(agentView(mesh.resources), uidOf('web'), stranger));
  }
});

for (const [name, spec, reason] of [
  ['an unknown mode', { mtls: { mode: 'ON' } }, /spec\.mtls\.mode must be one of UNSET/],
  ['an unknown field', { mode: 'PERMISSIVE' }, /spec\.mode is not known/],
  [
    'an unknown mode of a port',
    { mtls: { mode: 'PERMISSIVE' }, portLevelMtls: { 80: { mode: 1 } } },
    /portLevelMtls\.80\.mode/,
  ],
  [
    'a port that is none',
    { mtls: { mode: 'PERMISSIVE' }, portLevelMtls: { http: { mode: 'PERMISSIVE' } } },
    /"http" is no port/,
  ],
] as [string, Json, RegExp][]) {
  test(`a PeerAuthentication with ${name} leaves the one before in force, or else asks for mTLS`, async () => {
    const plain = { sourceIdentity: null };
    const { mesh, put, rejected } = meshUnderTest();
    await put(pod('web'), peerAuthentication('p', { mtls: { mode: 'PERMISSIVE' } }));
    await put(peerAuthentication('p', spec));
    assert.match(rejected[0]!.reason, reason);
    assert.equal(letsIn(agentView(mesh.resources), uidOf('web'), plain), true);

    const restarted = meshUnderTest();
    await restarted.put(pod('web'), pod('other'), peerAuthentication('p', { ...spec, selector: { matchLabels } }));
    const agent = agentView(restarted.mesh.resources);
    assert.deepEqual([letsIn(agent, uidOf('web'), plain), letsIn(agent, uidOf('web'))], [false, true]);
    assert.equal(letsIn(agent, uidOf('other'), plain), true, 'which it does not select');
  });
}

for (const [name, manifest, reason] of [
  [
    'a port of a Service',
    service('x', { spec: { ports: [{ port: 0 }] } }),
    /spec\.ports\[0\]\.port must be a whole number from 1/,
  ],
  ['a label that is no text', pod('x', { metadata: { labels: { app: 1 } } }), /metadata\.labels\.app must be a text/],
  ['a name', pod('a/b'), /metadata\.name must be the name/],
  ['a namespace', pod('x', { metadata: { namespace: '' } }), /metadata\.namespace must be/],
  ['a resolution', serviceEntry('x', { spec: { resolution: 'MAGIC' } }), /spec\.resolution must be one of/],
  ['a host', serviceEntry('x', { spec: { hosts: ['a/b'] } }), /spec\.hosts\[0\] must be a hostname/],
  [
    'how much it asks for',
    serviceEntry('x', {
      spec: {
        hosts: Array.from({ length: 1000 }, (_, index) => `h${index}.org`),
        endpoints: Array.from({ length: 250 }, () => ({ address: '10.0.0.1' })),
      },
    }),
    /22 MB of resources, by 1000 hosts, 1 ports, 250 endpoints: make several of it, of 16 MB/,
  ],
  [
    'how many ports it repeats',
    serviceEntry('x', {
      spec: {
        hosts: Array.from({ length: 256 }, (_, index) => `h${index}.org`),
        ports: Array.from({ length: 256 }, (_, index) => ({ number: 1000 + index, name: `p${index}` })),
        endpoints: Array.from({ length: 100 }, () => ({ address: '10.0.0.1' })),
      },
    }),
    /MB of resources, by 256 hosts, 256 ports, 100 endpoints: make several/,
  ],
  [
    'how many names it repeats',
    serviceEntry('x', {
      spec: {
        hosts: Array.from({ length: 256 }, (_, index) => `h${index}.org`),
        subjectAltNames: Array.from({ length: 64 }, () => `spiffe://${'x'.repeat(1500)}`),
      },
    }),
    /MB of resources, by 256 hosts, 1 ports, 64 subjectAltNames: make several/,
  ],
  ['a list', waypoint('x', { spec: { listeners: 'x' } }), /spec\.listeners must be a list/],
  [
    'who may use a waypoint',
    waypoint('x', {
      spec: { listeners: [{ port: 15008, protocol: 'HBONE', allowedRoutes: { namespaces: { from: 'Everybody' } } }] },
    }),
    /from must be All, Same, None or Selector/,
  ],
] as [string, Manifest, RegExp][]) {
  test(`an object that is wrong about ${name} is refused by name and harms no other`, async () => {
    const { mesh, put, rejected } = meshUnderTest();
    await put(manifest, service('web'), pod('web'));
    assert.equal(rejected.length, 1);
    assert.match(rejected[0]!.reason, reason);
    assert.equal(mesh.resources.counts().addresses, 2);
  });
}

test('what is wrong in a status that others write is not looked at', async () => {
  const { mesh, put, rejected } = meshUnderTest();
  const policy = authorizationPolicy('p', { action: 'DENY', rules: [{}] });
  await put(
    pod('web'),
    merged(policy, { status: { conditions: 'none' } }),
    merged(serviceEntry('x'), { status: { addresses: [1, null] } }),
  );
  assert.deepEqual(rejected, []);
  assert.equal(letsIn(agentView(mesh.resources), uidOf('web')), false);
});

// What is quadratic would take minutes, which is longer than a test may.
test('an object of many hosts or endpoints is worked out in a moment', { timeout: 60_000 }, async () => {
  const { mesh, put } = meshUnderTest();
  const many = <T>(of: (index: number) => T) => Array.from({ length: 20_000 }, (_, index) => of(index));
  const status = {
    addresses: many((index) => ({ host: `h${index}.org`, value: `240.240.${index >> 8}.${index & 255 || 1}` })),
  };
  await put(serviceEntry('hosts', { spec: { hosts: many((index) => `h${index}.org`) }, status }));
  const endpoints = many((index) => ({ address: `10.1.${index >> 8}.${index & 255}` }));
  await put(serviceEntry('endpoints', { spec: { endpoints } }));
  await put(serviceEntry('endpoints', { spec: { endpoints: endpoints.slice(1) } }));
  assert.equal(mesh.resources.counts().addresses, 20_000 + 1 + 19_999);
});

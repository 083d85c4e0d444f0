import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode } from '../support/xds-schema.ts';
import { meshUnderTest } from './support/mesh-under-test.ts';
import { authorizationPolicy, pod, uidOf } from './support/objects.ts';

type Json = Record<string, unknown>;

/** Rules as groups of clauses of matches, each match without the fields that ask nothing. */
function groupsOf(policy: Json | null): Json[][][] | null {
  const rules = (policy?.rules ?? null) as { clauses: { matches: Json[] }[] }[] | null;
  return rules?.map(({ clauses }) => clauses.map(({ matches }) => matches.map(asked))) ?? null;
}

function asked(match: Json): Json {
  return Object.fromEntries(Object.entries(match).filter(([, values]) => (values as unknown[]).length > 0));
}

const from = (...sources: Json[]) => ({ from: sources.map((source) => ({ source })) });
const to = (...operations: Json[]) => ({ to: operations.map((operation) => ({ operation })) });
const when = (key: string, values?: string[], notValues?: string[]) => ({ when: [{ key, values, notValues }] });
const exact = (...texts: string[]) => texts.map((text) => ({ exact: text }));
const block = (address: string, length: number) => ({ address, length });

/** [name, rule, action, the clauses of its group; null when the group is left out] */
for (const [name, rule, action, clauses] of [
  ['that asks nothing', {}, 'ALLOW', []],
  [
    'of principals',
    from({ principals: ['a', 'b'], notPrincipals: ['c'] }),
    'ALLOW',
    [[{ principals: exact('a', 'b'), notPrincipals: exact('c') }]],
  ],
  [
    'of namespaces',
    from({ namespaces: ['a'], notNamespaces: ['b'] }),
    'ALLOW',
    [[{ namespaces: exact('a'), notNamespaces: exact('b') }]],
  ],
  [
    'of texts with stars',
    from({ principals: ['*', 'a*', '*a', '*a*', 'a*b', '**'] }),
    'ALLOW',
    [
      [
        {
          principals: [
            { presence: {} },
            { prefix: 'a' },
            { suffix: 'a' },
            { suffix: 'a*' },
            { exact: 'a*b' },
            { suffix: '*' },
          ],
        },
      ],
    ],
  ],
  [
    'of service accounts',
    from({ serviceAccounts: ['sa', 'other/sa', 'x/y/z'], notServiceAccounts: ['*'] }),
    'ALLOW',
    [
      [
        {
          serviceAccounts: [
            { namespace: 'demo', serviceAccount: 'sa' },
            { namespace: 'other', serviceAccount: 'sa' },
            { namespace: 'x', serviceAccount: 'y/z' },
          ],
          notServiceAccounts: [{ namespace: 'demo', serviceAccount: '*' }],
        },
      ],
    ],
  ],
  [
    'of addresses',
    from({ ipBlocks: ['10.0.0.1', '10.1.2.3/8', 'fd00::1'], notIpBlocks: ['fd00::1/64', '0.0.0.0/0'] }),
    'ALLOW',
    [
      [
        {
          sourceIps: [block('10.0.0.1', 32), block('10.1.2.3', 8), block('fd00::1', 128)],
          notSourceIps: [block('fd00::1', 64), block('0.0.0.0', 0)],
        },
      ],
    ],
  ],
  [
    'of ports',
    to({ ports: ['80', '0', '65535'], notPorts: ['1'] }),
    'ALLOW',
    [[{ destinationPorts: [80, 0, 65535], notDestinationPorts: [1] }]],
  ],
  [
    'when source.namespace',
    when('source.namespace', ['a'], ['b']),
    'ALLOW',
    [[{ namespaces: exact('a'), notNamespaces: exact('b') }]],
  ],
  ['when source.principal', when('source.principal', ['a']), 'ALLOW', [[{ principals: exact('a') }]]],
  [
    'when source.ip',
    when('source.ip', undefined, ['10.0.0.0/8']),
    'ALLOW',
    [[{ notSourceIps: [block('10.0.0.0', 8)] }]],
  ],
  [
    'when destination.ip',
    when('destination.ip', ['10.0.0.1'], ['10.0.0.2']),
    'ALLOW',
    [[{ destinationIps: [block('10.0.0.1', 32)], notDestinationIps: [block('10.0.0.2', 32)] }]],
  ],
  [
    'when destination.port',
    when('destination.port', ['80'], ['81']),
    'ALLOW',
    [[{ destinationPorts: [80], notDestinationPorts: [81] }]],
  ],
  [
    'of all three',
    {
      ...when('destination.port', ['80']),
      ...from({ principals: ['a'] }, { namespaces: ['b'] }),
      ...to({ ports: ['1'] }, { ports: ['2'] }),
    },
    'ALLOW',
    [
      [{ destinationPorts: [1] }, { destinationPorts: [2] }],
      [{ principals: exact('a') }, { namespaces: exact('b') }],
      [{ destinationPorts: [80] }],
    ],
  ],
  ...['hosts', 'notHosts', 'methods', 'notMethods', 'paths', 'notPaths'].flatMap((field) => [
    [`of ${field}`, to({ ports: ['80'], [field]: ['x'] }), 'ALLOW', null],
    [`of ${field}`, to({ ports: ['80'], [field]: ['x'] }), 'DENY', [[{ destinationPorts: [80] }]]],
  ]),
  ...['requestPrincipals', 'notRequestPrincipals', 'remoteIpBlocks', 'notRemoteIpBlocks', 'trustDomains'].flatMap(
    (field) => [
      [`of ${field}`, from({ namespaces: ['a'], [field]: ['x'] }), 'ALLOW', null],
      [`of ${field}`, from({ [field]: ['x'] }, { namespaces: ['a'] }), 'DENY', [[{}, { namespaces: exact('a') }]]],
    ],
  ),
  ...[
    'remote.ip',
    'request.headers[x]',
    'connection.sni',
    'experimental.x',
    'source.serviceAccount',
    'constructor',
  ].flatMap((key) => [
    [`when ${key}`, { ...from({ namespaces: ['a'] }), ...when(key, ['x']) }, 'ALLOW', null],
    [
      `when ${key}`,
      { ...from({ namespaces: ['a'] }), ...when(key, ['x']) },
      'DENY',
      [[{ namespaces: exact('a') }], [{}]],
    ],
  ]),
] as [string, Json, string, Json[][] | null][]) {
  test(`a rule ${name}, to ${action}`, async () => {
    const { put, policy, rejected } = meshUnderTest();
    const other = from({ principals: ['other'] });
    await put(authorizationPolicy('p', { action, rules: [rule, other] }));
    assert.deepEqual(rejected, []);
    assert.equal(policy('demo/p')?.action, action === 'DENY' ? 1 : 0);
    assert.deepEqual(groupsOf(policy('demo/p')), [
      ...(clauses === null ? [] : [clauses]),
      [[{ principals: exact('other') }]],
    ]);
  });
}

const matchLabels = { app: 'web' };
for (const [name, spec, metadata, wanted] of [
  ['with a selector', { selector: { matchLabels } }, {}, { scope: 2, listed: true }],
  ['of another namespace', { selector: { matchLabels } }, { namespace: 'other' }, { scope: 2, listed: false }],
  [
    'of the root namespace with a selector',
    { selector: { matchLabels } },
    { namespace: 'istio-system' },
    { scope: 2, listed: true },
  ],
  ['with another selector', { selector: { matchLabels: { app: 'x' } } }, {}, { scope: 2, listed: false }],
  ['without a selector', {}, {}, { scope: 1, listed: false }],
  // istiod attaches it to nothing, so that what it denies is let in.
  ['with a selector that asks nothing', { selector: {} }, {}, { scope: 1, listed: false }],
  ['of the root namespace', {}, { namespace: 'istio-system' }, { scope: 0, listed: false }],
  ['without an action', { action: undefined }, {}, { scope: 1, listed: false }],
  ['that is attached to a target', { targetRefs: [{ kind: 'Service', name: 'web' }] }, {}, null],
  ['that is attached to one target', { targetRef: { kind: 'Gateway', name: 'wp' } }, {}, null],
  ['to audit', { action: 'AUDIT', selector: { matchLabels } }, {}, null],
  ['to ask another', { action: 'CUSTOM', selector: { matchLabels }, provider: { name: 'x' } }, {}, null],
  ['that is a dry run', { selector: { matchLabels } }, { annotations: { 'istio.io/dry-run': 'T' } }, null],
  [
    'that is nearly a dry run',
    { selector: { matchLabels } },
    { annotations: { 'istio.io/dry-run': 'yes' } },
    { scope: 2, listed: true },
  ],
  ['of another revision', { selector: { matchLabels } }, { labels: { 'istio.io/rev': 'blue' } }, null],
] as [string, Json, Json, { scope: number; listed: boolean } | null][]) {
  test(`a policy ${name}`, async () => {
    const { put, policy, address, rejected } = meshUnderTest({ revision: 'green' });
    await put(pod('web'), authorizationPolicy('p', { action: 'DENY', rules: [{}], ...spec }, metadata));
    assert.deepEqual(rejected, []);
    const key = `${(metadata.namespace as string) ?? 'demo'}/p`;
    assert.deepEqual(policy(key)?.scope ?? null, wanted?.scope ?? null);
    assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, wanted?.listed ? [key] : []);
  });
}

test('dry runs are sent where they are enabled', async () => {
  const { put, policy } = meshUnderTest({ allowDryRun: true });
  await put(
    authorizationPolicy('p', {}, { annotations: { 'istio.io/dry-run': 'true' } }),
    authorizationPolicy('q', {}),
  );
  assert.deepEqual([policy('demo/p')?.dryRun, policy('demo/q')?.dryRun], [true, false]);
  assert.deepEqual(groupsOf(policy('demo/p')), [], 'allows nobody');
});

const L4 = from({ principals: ['a'] });
for (const [name, spec, metadata, wanted] of [
  ['in force', { rules: [L4] }, {}, ['True', 'Accepted', /attached to ztunnel/]],
  ['to audit', { action: 'AUDIT' }, {}, ['False', 'UnsupportedValue', /AUDIT/]],
  ['to ask another', { action: 'CUSTOM' }, {}, ['False', 'UnsupportedValue', /CUSTOM/]],
  ['that is a dry run', {}, { annotations: { 'istio.io/dry-run': 'true' } }, ['False', 'UnsupportedValue', /demo\/p/]],
  ['with a target', { targetRefs: [{ kind: 'Gateway', name: 'x' }] }, {}, null],
  [
    'that allows by HTTP',
    {
      rules: [
        {
          ...from({ requestPrincipals: ['x'] }),
          ...to({ methods: ['GET'], paths: ['/'] }),
          ...when('request.headers[x]', ['y']),
        },
        L4,
      ],
    },
    {},
    ['True', 'UnsupportedValue', /methods, paths, request.headers\[x\], requestPrincipals.*left out.*more restrictive/],
  ],
  [
    'that denies by HTTP only',
    { action: 'DENY', rules: [to({ methods: ['GET'] })] },
    {},
    ['True', 'UnsupportedValue', /methods.*no effect.*waypoint.*targetRef/],
  ],
  [
    'that denies one by HTTP',
    { action: 'DENY', rules: [{ ...L4, ...to({ methods: ['GET'] }) }] },
    {},
    ['True', 'UnsupportedValue', /no effect/],
  ],
  [
    'that denies by HTTP in one rule',
    { action: 'DENY', rules: [L4, to({ methods: ['GET'] })] },
    {},
    ['True', 'UnsupportedValue', /without them.*more restrictive/],
  ],
  [
    'that denies by HTTP and port',
    { action: 'DENY', rules: [to({ methods: ['GET'], ports: ['80'] })] },
    {},
    ['True', 'UnsupportedValue', /without them/],
  ],
  [
    'that denies everything, and by HTTP',
    { action: 'DENY', rules: [{}, to({ methods: ['GET'] })] },
    {},
    ['True', 'UnsupportedValue', /without them/],
  ],
] as [string, Json, Json, [string, string, RegExp] | null][]) {
  test(`status of a policy ${name}`, async () => {
    const { mesh, put, rejected } = meshUnderTest();
    await put(authorizationPolicy('p', spec, metadata));
    assert.deepEqual(rejected, []);
    const updates = [...mesh.statuses.conditions()].filter(
      ({ fieldManager }) => fieldManager !== 'istio-ambient-waypoint-policy',
    );
    if (wanted === null) {
      assert.deepEqual(updates, []);
      return;
    }
    const [{ kind, key, fieldManager, observedGeneration, conditions }] = updates as [(typeof updates)[0]];
    assert.deepEqual(
      [kind.kind, key, fieldManager, observedGeneration],
      ['AuthorizationPolicy', 'demo/p', 'istio-ambient-ztunnel-policy', 3],
    );
    const [{ type, status, reason, message }] = conditions as [(typeof conditions)[0]];
    assert.deepEqual([type, status, reason], ['ZtunnelAccepted', ...wanted.slice(0, 2)]);
    assert.match(message, wanted[2]);
  });
}

test('policies are there before the workloads that list them, and go after them', async () => {
  const { mesh, put, remove, changes } = meshUnderTest();
  await put(pod('web'));
  changes();
  const policy = authorizationPolicy('p', { selector: { matchLabels }, action: 'DENY', rules: [{}] });
  await put(policy);
  assert.deepEqual(changes(), { addresses: [uidOf('web')], policies: ['demo/p'] });
  // Another content is another policy, but no other workload.
  await put(authorizationPolicy('p', { selector: { matchLabels }, action: 'DENY' }));
  assert.deepEqual(changes(), { addresses: [], policies: ['demo/p'] });
  await remove('AuthorizationPolicy', 'demo/p');
  assert.deepEqual(changes(), { addresses: [uidOf('web')], policies: ['demo/p'] });
  assert.equal(mesh.resources.counts().policies, 0);
});

test('policies of a pod follow its labels, in the order of their keys', async () => {
  const { put, address } = meshUnderTest();
  for (const name of ['b', 'a', 'c'])
    await put(
      authorizationPolicy(name, { selector: { matchLabels } }, { namespace: name === 'c' ? 'istio-system' : 'demo' }),
    );
  await put(pod('web', { metadata: { labels: undefined } }));
  assert.deepEqual(
    address(uidOf('web'))?.authorizationPolicies,
    [],
    'istiod attaches all of them to a pod without labels',
  );
  await put(pod('web'));
  assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, ['demo/a', 'demo/b', 'istio-system/c']);
});

test('a policy that is narrowed to a selector holds as before until the workloads list it', async () => {
  const { mesh, put } = meshUnderTest();
  const rules = [{ from: [{ source: { namespaces: ['evil'] } }] }];
  const crowd = Array.from({ length: 5000 }, (_, n) => pod(`web-${n}`, { metadata: { labels: { app: 'web' } } }));
  await put(...crowd, pod('web'), pod('other'), authorizationPolicy('p', { action: 'DENY', rules }));
  const { resources } = mesh;
  const narrowed: string[] = [];
  const states: unknown[] = [];
  resources.onChange((change) => narrowed.push(...change.narrowed));
  // Whoever asks in the middle of the work sees one of the two states, never a policy for nobody.
  const look = setInterval(() => {
    resources.announce();
    states.push([scopeOf('demo/p'), listed('web')]);
  });
  const selector = { matchLabels: { app: 'web' } };
  await put(authorizationPolicy('p', { action: 'DENY', rules, selector }));
  clearInterval(look);
  assert.ok(states.length > 0, 'the work was done in one turn');
  assert.deepEqual([scopeOf('demo/p'), listed('web'), listed('other')], [SELECTOR, ['demo/p'], []]);
  assert.deepEqual(narrowed, ['demo/p']);
  for (const state of states) assert.notDeepEqual(state, [SELECTOR, []]);
  // The other way needs no such care: it holds for all before anybody lets go of it.
  await put(authorizationPolicy('p', { action: 'DENY', rules }));
  assert.deepEqual([scopeOf('demo/p'), listed('web'), narrowed], [NAMESPACE, [], ['demo/p']]);

  function scopeOf(name: string): unknown {
    return decode('Authorization', resources.policy(name)!.body).scope;
  }
  function listed(name: string): unknown {
    const workload = decode('Address', resources.address(uidOf(name))!.body).workload as Record<string, unknown>;
    return workload.authorizationPolicies ?? [];
  }
});

/** Values of the field `scope` (§9.7). */
const NAMESPACE = 1;
const SELECTOR = 2;

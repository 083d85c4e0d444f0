import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explain } from '../../src/explain/explain.ts';
import { printExplanation } from '../../src/explain/print.ts';
import type { Explanation } from '../../src/explain/types.ts';
import { QuestionError, type World } from '../../src/explain/world.ts';
import { inSlices } from '../../src/slices.ts';
import type { MeshUpdate } from '../../src/state/mesh-state.ts';
import { byAddress, match, meshOf, pod, policy, service, workload } from '../state/mesh-builder.ts';

const HOST = 'echo.default.svc.cluster.local';
/** Of the client: the second endpoint fails. Of somebody else: the first. */
const failing = [
  { pod: 'uid-of-client', worker: 2, endpoint: '10.0.1.2:8080', failures: 3, ejectedFor: 4000 },
  { pod: 'uid-of-echo-1', worker: 1, endpoint: '10.0.1.1:8080', failures: 1, ejectedFor: 0 },
];
const ECHO = { [`default/${HOST}`]: { 80: 8080 } };

function world(): World {
  const mesh = meshOf({
    services: [
      service('echo', { vips: ['/10.96.0.10'], subjectAltNames: ['spiffe://cluster.local/ns/default/sa/extra'] }),
      service('empty', { vips: ['/10.96.0.11'] }),
      service('headless', { vips: [] }),
      service('guarded', { vips: ['/10.96.0.12'], waypoint: byAddress('10.96.0.20') }),
      service('waypoint', { vips: ['/10.96.0.20'], ports: { 15008: 15008 } }),
      service('named', { vips: ['/10.96.0.13'] }),
      service('lost-name', { vips: ['/10.96.0.14'] }),
    ],
    workloads: [
      workload('client', { workloadIps: ['10.0.0.1'] }),
      workload('stranger', { workloadIps: ['10.0.0.2'], protocol: 'TCP' }),
      workload('echo-1', { workloadIps: ['10.0.1.1'], services: ECHO, authorizationPolicies: ['default/not-9000'] }),
      workload('echo-2', {
        workloadIps: ['10.0.1.2'],
        services: ECHO,
        capacity: 3,
        node: 'node-b',
        authorizationPolicies: ['default/only-admins'],
      }),
      workload('plain', { workloadIps: ['10.0.1.3'], protocol: 'TCP' }),
      workload('lost', { workloadIps: ['10.0.1.4'], authorizationPolicies: ['default/gone'] }),
      workload('waypoint', {
        workloadIps: ['10.0.2.1'],
        nativeTunnel: true,
        services: { 'default/waypoint.default.svc.cluster.local': { 15008: 15008 } },
      }),
      workload('behind', {
        workloadIps: ['10.0.1.9'],
        services: { 'default/guarded.default.svc.cluster.local': { 80: 8080 } },
        authorizationPolicies: ['default/only-the-waypoint'],
      }),
      workload('homeless', { workloadIps: [], services: { 'default/awaited.default.svc.cluster.local': {} } }),
      workload('by-name', {
        hostname: 'db.example.com',
        protocol: 'TCP',
        services: { 'default/named.default.svc.cluster.local': {} },
      }),
      workload('gone', {
        hostname: 'gone.example.com',
        protocol: 'TCP',
        services: { 'default/lost-name.default.svc.cluster.local': {} },
      }),
    ],
    policies: [
      policy('not-9000', { scope: 'WorkloadSelector', rules: match({ destinationPorts: [9000] }) }),
      policy('only-admins', {
        scope: 'WorkloadSelector',
        action: 'Allow',
        rules: [
          ...match({ namespaces: [{ Exact: 'admin' }] }),
          ...match({ principals: [{ Suffix: '/sa/admin' }], destinationPorts: [8080] }),
        ],
      }),
      policy('only-the-waypoint', {
        scope: 'WorkloadSelector',
        action: 'Allow',
        rules: match({ principals: [{ Exact: 'cluster.local/ns/default/sa/waypoint' }] }),
      }),
      policy('strict', {
        scope: 'Global',
        namespace: 'istio-system',
        dryRun: true,
        rules: match({ notPrincipals: [{ Presence: [] }] }),
      }),
    ],
  });
  return {
    mesh,
    network: '',
    localNode: 'node-a',
    pods: ['client', 'echo-1', 'lost'].map((name) => pod(name)),
    failing,
    names: {
      addresses: (hostname) =>
        hostname === 'db.example.com' ? { ips: ['192.0.2.7'], failure: '' } : { ips: [], failure: 'ENOTFOUND' },
    },
  };
}

const ask = (from: string, to: string, port: string | null = null) => inSlices(explain(world(), { from, to, port }));

const short = ({ outcome, route }: Explanation) =>
  route.kind === 'refused'
    ? `${outcome}: ${route.reason.tag}`
    : `${outcome}: ${route.kind} to ${route.endpoints.map(({ address }) => address).join(' ')}`;

const table: readonly [from: string, to: string, answer: string][] = [
  ['default/client', '10.0.1.1:8080', 'allowed: tunnel to 10.0.1.1:15008'],
  ['default/client', 'default/echo-1:8080', 'allowed: tunnel to 10.0.1.1:15008'],
  ['default/client', 'default/echo-1:9000', 'denied: tunnel to 10.0.1.1:15008'],
  ['default/client', 'Kubernetes//Pod/default/echo-1:9000', 'denied: tunnel to 10.0.1.1:15008'],
  ['10.0.0.1', 'default/echo-2:8080', 'denied: tunnel to 10.0.1.2:15008'],
  ['uid-of-client', `${HOST}:80`, 'depends-on-endpoint: tunnel to 10.0.1.1:15008 10.0.1.2:15008'],
  ['Kubernetes//Pod/default/client', 'echo:80', 'depends-on-endpoint: tunnel to 10.0.1.1:15008 10.0.1.2:15008'],
  ['default/client', 'echo.default:80', 'depends-on-endpoint: tunnel to 10.0.1.1:15008 10.0.1.2:15008'],
  ['default/client', 'echo.default.svc:80', 'depends-on-endpoint: tunnel to 10.0.1.1:15008 10.0.1.2:15008'],
  ['default/client', `default/${HOST}:80`, 'depends-on-endpoint: tunnel to 10.0.1.1:15008 10.0.1.2:15008'],
  [
    'spiffe://cluster.local/ns/default/sa/client',
    '10.96.0.10:80',
    'depends-on-endpoint: tunnel to 10.0.1.1:15008 10.0.1.2:15008',
  ],
  ['default/client', 'echo:81', 'refused: no-healthy-upstream'],
  ['default/client', 'empty:80', 'refused: no-healthy-upstream'],
  ['default/client', 'default/plain:80', 'not-judged: plain to 10.0.1.3:80'],
  ['default/client', '203.0.113.9:443', 'not-judged: passthrough to 203.0.113.9:443'],
  ['default/client', '[2001:db8::9]:443', 'not-judged: passthrough to [2001:db8::9]:443'],
  ['default/client', 'guarded:80', 'not-judged: tunnel to 10.0.2.1:15008'],
  ['default/client', 'named:80', 'not-judged: plain to 192.0.2.7:8080'],
  ['default/client', 'lost-name:80', 'refused: unresolved-hostname'],
  ['default/client', 'default/lost:80', 'denied: tunnel to 10.0.1.4:15008'],
  ['default/stranger', 'default/echo-1:8080', 'allowed: plain to 10.0.1.1:8080'],
  ['default/stranger', 'default/echo-1:9000', 'denied: plain to 10.0.1.1:9000'],
  ['default/stranger', 'echo:80', 'depends-on-endpoint: plain to 10.0.1.1:8080 10.0.1.2:8080'],
  ['default/stranger', 'empty:80', 'refused: no-healthy-upstream'],
  ['default/stranger', '203.0.113.9:443', 'not-judged: passthrough to 203.0.113.9:443'],
];

for (const [from, to, answer] of table) {
  test(`${from} to ${to} is ${answer}`, async () => assert.equal(short(await ask(from, to)), answer));
}

test('an endpoint is shown with its share, its expected identities, and the policies that decide', async () => {
  const { route, from, to, summary, notes } = await ask('default/client', 'echo', '80');
  assert.deepEqual([from.identity, from.enrolled], ['spiffe://cluster.local/ns/default/sa/client', true]);
  assert.deepEqual(to, { asked: 'echo', address: '10.96.0.10:80' });
  assert.deepEqual(notes, []);
  assert.match(summary, /1 of 2 endpoints allow it, others do not: allow policies exist, but none allowed/);
  assert.ok(route.kind !== 'refused');
  assert.deepEqual(route.service, { hostname: HOST, name: 'echo', namespace: 'default' });
  const [first, second] = route.endpoints;
  assert.deepEqual([first!.share, second!.share], [0.25, 0.75]);
  assert.deepEqual([first!.failing, second!.failing], [[], [{ worker: 2, failures: 3, ejectedForMs: 4000 }]]);
  assert.deepEqual(first!.expectedIdentities, [
    'spiffe://cluster.local/ns/default/sa/echo-1',
    'spiffe://cluster.local/ns/default/sa/extra',
  ]);
  assert.equal(first!.authority, '10.0.1.1:8080');
  const { policy } = second!;
  assert.ok(policy.kind === 'judged');
  assert.deepEqual(policy.as, {
    identity: 'spiffe://cluster.local/ns/default/sa/client',
    source: '10.0.0.1',
    destination: '10.0.1.2:8080',
  });
  assert.equal(policy.verdict, 'deny');
  assert.equal(policy.decidedBy, null);
  assert.deepEqual(
    policy.policies.map(({ policy, outcome, dryRun }) => [policy, outcome, dryRun]),
    [
      ['istio-system/strict', 'not-matched', true],
      ['default/only-admins', 'not-matched', false],
    ],
  );
  assert.deepEqual(policy.policies[1]!.failed, [
    {
      rule: 0,
      clause: 0,
      matches: [{ match: 0, field: 'namespaces', values: [{ Exact: 'admin' }], furtherValues: 0, has: 'default' }],
    },
    {
      rule: 1,
      clause: 0,
      matches: [
        {
          match: 0,
          field: 'principals',
          values: [{ Suffix: '/sa/admin' }],
          furtherValues: 0,
          has: 'cluster.local/ns/default/sa/client',
        },
      ],
    },
  ]);
});

test('the rule that denies is named, and what a dry run would do is shown', async () => {
  const { route } = await ask('default/stranger', 'default/echo-1:9000');
  assert.ok(route.kind !== 'refused');
  const { policy } = route.endpoints[0]!;
  assert.ok(policy.kind === 'judged');
  assert.deepEqual(policy.decidedBy, { policy: 'default/not-9000', rule: 0 });
  assert.deepEqual(
    policy.policies.map(({ policy, outcome, rule }) => [policy, outcome, rule]),
    [
      ['istio-system/strict', 'matched', 0],
      ['default/not-9000', 'matched', 0],
    ],
  );
});

test('a waypoint on the way is named', async () => {
  const { route } = await ask('default/client', 'guarded:80');
  assert.ok(route.kind !== 'refused');
  assert.deepEqual(route.waypoints, ['/10.96.0.20']);
  assert.deepEqual(route.endpoints[0]!.authority, '10.96.0.12:80');
  const direct = await ask('default/client', 'default/echo-1:8080');
  assert.ok(direct.route.kind !== 'refused');
  assert.deepEqual(direct.route.waypoints, []);
});

test('what a waypoint would meet is told with its own identity, and its own rules are left to it', async () => {
  const explanation = await ask('default/client', 'guarded:80');
  const { outcome, route } = explanation;
  assert.ok(route.kind !== 'refused');
  assert.equal(outcome, 'not-judged');
  const behind = route.behindWaypoint!;
  assert.equal(behind.identity, 'spiffe://cluster.local/ns/default/sa/waypoint');
  assert.deepEqual(
    behind.endpoints.map(({ name, address, policy }) => [name, address, policy.kind === 'judged' && policy.verdict]),
    [['behind', '10.0.1.9:15008', 'allow']],
  );
  const text = printExplanation(explanation);
  assert.match(text, /waypoint default\/waypoint: whether it lets the connection through is for its own rules to say/);
  assert.match(text, /to {6}default\/behind {2}10\.0\.1\.9:15008\n {2}policy {2}ALLOW/);
});

test('an address that DNS gave is shown with its name, and what DNS said of one without', async () => {
  assert.match(printExplanation(await ask('default/client', 'named:80')), /192\.0\.2\.7:8080 \(db\.example\.com\)/);
  assert.match((await ask('default/client', 'lost-name:80')).summary, /gone\.example\.com: ENOTFOUND/);
});

test('pods of this node that are not enrolled are pointed out', async () => {
  const { notes } = await ask('default/stranger', 'default/echo-1:8080');
  assert.match(notes.join('\n'), /default\/stranger is not in the mesh: it connects in plain text/);
});

test('the text names the policy, the rule, the field that failed and what the connection has', async () => {
  const text = printExplanation(await ask('default/client', 'echo:80'));
  assert.match(text, /^The connection goes through a tunnel; 1 of 2 endpoints allow it/);
  assert.match(text, /endpoint {2}default\/echo-2 {2}10\.0\.1\.2:15008 {2}75 % of new connections, healthy, hbone/);
  assert.match(text, /failing worker 2: 3 failures in a row, left out for 4\.0 s/);
  assert.match(text, /policy {2}DENY: allow policies exist, but none allowed/);
  assert.match(text, /- default\/only-admins {2}ALLOW, WorkloadSelector: does not match/);
  assert.match(text, /rule 0, clause 0, match 0: namespaces admin; the connection has default/);
  assert.match(text, /rule 1, clause 0, match 0: principals \*\/sa\/admin; the connection has cluster\.local\/ns/);
});

const strictly = { mode: 'Strict', routingPreferences: ['Zone', 'Node'], healthPolicy: 'OnlyHealthy' } as const;
const WEB = { 'default/web.default.svc.cluster.local': {} };
const notes: readonly [what: string, mesh: MeshUpdate, to: string, note: string][] = [
  [
    'a port that the service lacks',
    { services: [service('web', { vips: ['/10.96.1.1'], ports: { 80: 8080, 443: 8443 } })] },
    'web:81',
    'the service default/web.default.svc.cluster.local has no port 81; it has 80, 443',
  ],
  [
    'a service without ports',
    { services: [service('web', { vips: ['/10.96.1.1'], ports: {} })] },
    '10.96.1.1:80',
    'the service default/web.default.svc.cluster.local has no port 80; it has none',
  ],
  [
    'a service of which all endpoints are unhealthy',
    {
      services: [service('web', { vips: ['/10.96.1.1'] })],
      workloads: [workload('a', { workloadIps: ['10.1.0.1'], status: 'Unhealthy', services: WEB })],
    },
    'web:80',
    'the service default/web.default.svc.cluster.local has no endpoint: no healthy workload says that it is one',
  ],
  [
    'endpoints of which none is near enough',
    {
      services: [service('web', { vips: ['/10.96.1.1'], loadBalancer: strictly })],
      workloads: [workload('a', { workloadIps: ['10.1.0.1'], node: 'node-b', services: WEB })],
    },
    'web:80',
    'the service default/web.default.svc.cluster.local has endpoints (1), but none that has a weight, an address and the port and shares Zone, Node with the source',
  ],
  [
    'an endpoint of another network without a gateway',
    {
      services: [service('web', { vips: ['/10.96.1.1'] })],
      workloads: [workload('a', { workloadIps: ['10.1.0.1'], network: 'n2', services: WEB })],
    },
    'web:80',
    'default/a is on the network "n2", not on that of the source, and says no gateway of that network',
  ],
  [
    'an endpoint without an address of the family',
    {
      services: [service('web', { vips: ['/10.96.1.1'], ipFamilies: 'IPv6' })],
      workloads: [workload('a', { workloadIps: ['10.1.0.1'], services: WEB })],
    },
    'web:80',
    'default/a has 10.1.0.1; the service takes IPv6',
  ],
  [
    'a service that is left alone',
    {
      services: [
        service('web', {
          vips: ['/10.96.1.1'],
          loadBalancer: { mode: 'Passthrough', routingPreferences: [], healthPolicy: 'OnlyHealthy' },
        }),
      ],
    },
    'web:80',
    'the service default/web.default.svc.cluster.local is known, but its load balancing is Passthrough: nothing is done with it',
  ],
  [
    'an address that another service has too',
    { services: [service('web', { vips: ['/10.96.1.1'] }), service('other', { vips: ['/10.96.1.1'] })] },
    'other:80',
    'for this source 10.96.1.1 leads to the service default/web.default.svc.cluster.local, not to default/other.default.svc.cluster.local',
  ],
  [
    'an address that another workload has too',
    { workloads: [workload('a', { workloadIps: ['10.1.0.1'] }), workload('b', { workloadIps: ['10.1.0.1'] })] },
    'default/a:80',
    'for this source 10.1.0.1 leads to the workload default/b, not to Kubernetes//Pod/default/a',
  ],
  [
    'to a source that is not in the mesh, a service with the address of a workload',
    {
      services: [service('web', { vips: ['/10.96.1.1'] })],
      workloads: [
        workload('client', { workloadIps: ['10.0.0.1'], protocol: 'TCP' }),
        workload('a', { workloadIps: ['10.96.1.1'] }),
      ],
    },
    'web:80',
    'for this source 10.96.1.1 leads to the workload default/a, not to default/web.default.svc.cluster.local',
  ],
  [
    'an address of another network',
    { workloads: [workload('a', { workloadIps: ['10.1.0.1'], network: 'n2' })] },
    'default/a:80',
    'for this source 10.1.0.1 leads to nothing that the mesh knows on the network "", not to Kubernetes//Pod/default/a',
  ],
];
for (const [what, mesh, to, note] of notes) {
  test(`${what} is pointed out`, async () => {
    const small = meshOf({ workloads: [workload('client', { workloadIps: ['10.0.0.1'] })] }, mesh);
    const explanation = await inSlices(
      explain({ ...world(), mesh: small }, { from: 'default/client', to, port: null }),
    );
    assert.ok(explanation.notes.includes(note), explanation.notes.join('\n'));
    assert.ok(printExplanation(explanation).includes(`note: ${note}\n`));
  });
}

test('of thousands of values the first are shown and the others counted, and of unwanted ones those that fit', async () => {
  const named = (account: string) => ({ Exact: `cluster.local/ns/default/sa/${account}` });
  const many = Array.from({ length: 5000 }, (_, index) => named(`s${index}`));
  const small = meshOf({
    workloads: [workload('client', { workloadIps: ['10.0.0.1'] }), workload('server', { workloadIps: ['10.1.0.1'] })],
    policies: [
      policy('allow', {
        action: 'Allow',
        rules: [...match({ principals: many }), ...match({ notPrincipals: [...many, named('client')] })],
      }),
    ],
  });
  const explanation = await inSlices(
    explain({ ...world(), mesh: small }, { from: 'default/client', to: 'default/server:80', port: null }),
  );
  const text = printExplanation(explanation);
  assert.match(text, /principals cluster\.local\/ns\/default\/sa\/s0, .*\/sa\/s19 and 4980 more; the connection has/);
  assert.match(text, /notPrincipals cluster\.local\/ns\/default\/sa\/client; the connection has/);
});

const mistakes: readonly [from: string, to: string, port: string | null, sentence: RegExp][] = [
  ['', 'echo:80', null, /from= is missing: name a pod as namespace\/name/],
  ['default/client', '', null, /to= is missing: name a service, a pod or an address/],
  ['client', 'echo:80', null, /from=client is understood neither as namespace\/pod nor as an address/],
  ['default/nobody', 'echo:80', null, /no workload default\/nobody: \/config_dump lists those that it has/],
  ['10.9.9.9', 'echo:80', null, /no workload of the mesh has the address 10\.9\.9\.9: name the pod as namespace\/name/],
  ['spiffe://a/ns/b/sa/c', 'echo:80', null, /no workload of the mesh has the identity .*: name a pod/],
  ['default/client', 'echo', null, /to=echo says no port: ask for to=echo:80, or add port=80/],
  ['default/client', '10.0.1.1', null, /says no port/],
  ['default/client', '2001:db8::1', null, /says no port: ask for to=\[2001:db8::1\]:80, or add port=80/],
  ['default/client', 'echo', '0', /"0" is no port: a number from 1 to 65535/],
  ['default/client', 'echo', 'http', /"http" is no port/],
  ['default/client', 'echo:99999', null, /"99999" is no port/],
  ['default/client', 'echo:80', '81', /to=echo:80 and port=81 name two ports: leave one of them out/],
  ['default/client', 'nothing:80', null, /neither a service nor a workload nothing: name a service by its host name/],
  ['default/client', 'default/nothing:80', null, /neither a service nor a workload default\/nothing/],
  [
    'default/client',
    'awaited:80',
    null,
    /workloads say that they serve default\/awaited\.default\.svc\.cluster\.local, but the mesh state has no such/,
  ],
  ['default/client', 'headless:80', null, /has no address of its own: .* ask for a pod as namespace\/name:port/],
  ['default/client', 'default/homeless:80', null, /the workload default\/homeless has no address/],
];

for (const [from, to, port, sentence] of mistakes) {
  test(`from=${from} to=${to}${port === null ? '' : ` port=${port}`} is answered by what to ask instead`, async () => {
    await assert.rejects(ask(from, to, port), (error) => {
      assert.ok(error instanceof QuestionError);
      assert.match(error.message, sentence);
      return true;
    });
  });
}

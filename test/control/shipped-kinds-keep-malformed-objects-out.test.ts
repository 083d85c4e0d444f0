import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MESH_KINDS } from '../../src/control/objects/kinds.ts';
import { noApiServer, startApiServer } from '../cni/support/api-server.ts';
import { installShippedKinds, shippedKinds } from './support/shipped-kinds.ts';

const SECURITY = 'security.istio.io';
const NETWORKING = 'networking.istio.io';
const of = (group: string, kind: string, plural: string) => ({ group, kind, plural });
const AP = of(SECURITY, 'AuthorizationPolicy', 'authorizationpolicies');
const PA = of(SECURITY, 'PeerAuthentication', 'peerauthentications');
const SE = of(NETWORKING, 'ServiceEntry', 'serviceentries');
const WE = of(NETWORKING, 'WorkloadEntry', 'workloadentries');
const app = { matchLabels: { app: 'web' } };
const from = (source: unknown) => ({ rules: [{ from: [{ source }] }] });
const to = (operation: unknown) => ({ rules: [{ to: [{ operation }] }] });
const entry = (more: object) => ({ hosts: ['a.example'], ports: [{ number: 443, name: 'tls' }], ...more });

const GOOD: readonly [typeof AP, object][] = [
  [AP, {}],
  [AP, { rules: [{}] }],
  [AP, { selector: app, action: 'DENY', ...from({ principals: ['*'], ipBlocks: ['10.0.0.0/8', '::1'] }) }],
  [AP, { ...to({ ports: ['80'], methods: ['GET'] }), selector: app }],
  [AP, { rules: [{ when: [{ key: 'source.ip', notValues: ['10.0.0.1'] }] }] }],
  [AP, { action: 'CUSTOM', provider: { name: 'x' } }],
  [AP, { targetRefs: [{ kind: 'Service', name: 'web', group: '' }] }],
  [PA, { mtls: { mode: 'STRICT' } }],
  [PA, { selector: app, portLevelMtls: { 8080: { mode: 'PERMISSIVE' } } }],
  [SE, entry({ resolution: 'DNS' })],
  [
    SE,
    entry({
      resolution: 'STATIC',
      addresses: ['10.1.0.0/16'],
      endpoints: [{ address: '10.1.1.1', ports: { tls: 8443 }, weight: 3 }],
    }),
  ],
  [SE, entry({ workloadSelector: { labels: { app: 'web' } }, resolution: 'STATIC', location: 'MESH_INTERNAL' })],
  [WE, { address: '10.2.2.2', labels: { app: 'web' }, serviceAccount: 'vm' }],
];

const BAD: readonly [typeof AP, object, RegExp][] = [
  [AP, { action: 'LET' }, /spec\.action.*Unsupported value/],
  [AP, { selector: app, targetRef: { kind: 'Service', name: 'x' } }, /only one of selector, targetRef and targetRefs/],
  [AP, { action: 'CUSTOM' }, /provider goes with the action CUSTOM/],
  [AP, { selector: { matchLabels: { app: 'we*' } } }, /no wildcards/],
  [AP, from({}), /source.*should have at least 1 properties/],
  [AP, { rules: [{ from: [{}] }] }, /source.*Required/],
  [AP, from({ ipBlocks: ['ten'] }), /ipBlocks/],
  [AP, to({ ports: ['http'] }), /ports/],
  [AP, to({ ports: [80] }), /ports.*must be of type string/],
  [AP, { rules: [{ when: [{ key: 'source.ip' }] }] }, /when/],
  [AP, { rules: 'all' }, /rules.*must be of type array/],
  [PA, { mtls: { mode: 'ON' } }, /mode.*Unsupported value/],
  [PA, { portLevelMtls: { 80: { mode: 'STRICT' } } }, /portLevelMtls goes with a selector/],
  [PA, { selector: app, portLevelMtls: { http: { mode: 'STRICT' } } }, /a port is a number/],
  [SE, { ports: [] }, /hosts.*Required/],
  [SE, entry({ hosts: ['a b'] }), /hosts/],
  [SE, entry({ ports: [{ number: 0, name: 'x' }] }), /number/],
  [SE, entry({ subjectAltNames: ['x'.repeat(2049)] }), /subjectAltNames.*may not be (longer|more) than 2048/i],
  [SE, entry({ resolution: 'GUESS' }), /resolution.*Unsupported value/],
  [SE, entry({ workloadSelector: {}, endpoints: [] }), /only one of workloadSelector and endpoints/],
  [WE, { labels: {} }, /address or network/],
  [WE, { address: '10.0.0.1', ports: { http: 70000 } }, /ports\.http/],
];

test('the shipped kinds', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  await installShippedKinds(server);
  const post = ({ group, kind, plural }: typeof AP, spec: object, version = 'v1') =>
    server.call('POST', `/apis/${group}/${version}/namespaces/default/${plural}`, {
      ...{ apiVersion: `${group}/${version}`, kind, metadata: { generateName: 'x-' }, spec },
    });

  await t.test('are those that the control plane reads', () => {
    const read = MESH_KINDS.filter(({ group }) => [SECURITY, NETWORKING].includes(group));
    assert.deepEqual(
      shippedKinds()
        .map(({ spec }) => `${spec.group} ${spec.names.kind} ${spec.names.plural}`)
        .sort(),
      read.map(({ group, kind, plural }) => `${group} ${kind} ${plural}`).sort(),
    );
  });

  for (const [kind, spec] of GOOD) {
    await t.test(`take ${kind.kind} ${JSON.stringify(spec)}`, async () => {
      const { status, body } = await post(kind, spec);
      assert.equal(status, 201, JSON.stringify(body));
      const reader = MESH_KINDS.find((each) => each.kind === kind.kind)!;
      assert.notEqual(reader.read(body), null);
    });
  }

  for (const [kind, spec, complaint] of BAD) {
    await t.test(`refuse ${kind.kind} ${JSON.stringify(spec)}`, async () => {
      const { status, body } = await post(kind, spec);
      assert.equal(status, 422, JSON.stringify(body));
      assert.match(String(body.message), complaint);
    });
  }

  await t.test('keep unknown fields of policies, for the control plane to refuse them', async () => {
    for (const spec of [
      { acton: 'DENY' },
      { rules: [{ form: [] }] },
      from({ principals: ['*'], notPrincipal: ['x'] }),
    ]) {
      const { body } = await post(AP, spec);
      assert.deepEqual(body.spec, spec);
      assert.throws(() => MESH_KINDS.find(({ kind }) => kind === 'AuthorizationPolicy')!.read(body), /spec/);
    }
  });

  await t.test('serve the older versions', async () => {
    assert.equal((await post(AP, { rules: [{}] }, 'v1beta1')).status, 201);
    assert.equal((await post(SE, entry({}), 'v1alpha3')).status, 201);
  });
});

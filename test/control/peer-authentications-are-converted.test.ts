import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentView, letsIn } from './support/agent-view.ts';
import { type Manifest, meshUnderTest } from './support/mesh-under-test.ts';
import { peerAuthentication, pod, uidOf } from './support/objects.ts';

type Json = Record<string, unknown>;
type Mode = 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT';

const STATIC = 'istio-system/istio_converted_static_strict';
const CONVERTED = 'demo/converted_peer_authentication_own';
const own = (spec: Json) => peerAuthentication('own', { selector: { matchLabels: { app: 'web' } }, ...spec });
const ofNamespace = (mode: Mode) => peerAuthentication('ns', { mtls: { mode } });
const ofMesh = (mode: Mode) => peerAuthentication('mesh', { mtls: { mode } }, { namespace: 'istio-system' });
const mtls = (mode: Mode, ports: Record<number, Mode> = {}) => ({
  mtls: { mode },
  portLevelMtls: Object.fromEntries(Object.entries(ports).map(([port, mode]) => [port, { mode }])),
});

const S = { notPrincipals: [{ presence: {} }] };
const outside = (...ports: number[]) => ports.map((port) => [{ notDestinationPorts: [port] }]);
const at = (port: number) => [[{ ...S, destinationPorts: [port] }]];

/** [objects, key that the workload lists, groups of the converted policy] */
for (const [objects, key, groups] of [
  [[], null, null],
  [[ofMesh('STRICT')], STATIC, null],
  [[ofMesh('PERMISSIVE')], null, null],
  [[ofNamespace('STRICT')], STATIC, null],
  [[ofMesh('STRICT'), ofNamespace('UNSET')], STATIC, null],
  [[ofMesh('STRICT'), ofNamespace('PERMISSIVE')], null, null],
  [[ofMesh('STRICT'), own(mtls('DISABLE'))], null, null],
  [[own(mtls('STRICT'))], STATIC, null],
  [[own(mtls('STRICT', { 9090: 'STRICT', 8080: 'UNSET' }))], STATIC, null],
  [[own(mtls('STRICT', { 9090: 'PERMISSIVE' }))], CONVERTED, [[[S], ...outside(9090)]]],
  [[own(mtls('STRICT', { 9090: 'PERMISSIVE', 8080: 'DISABLE' }))], CONVERTED, [[[S], ...outside(8080, 9090)]]],
  [[own(mtls('PERMISSIVE', { 9090: 'STRICT', 8080: 'PERMISSIVE' }))], CONVERTED, [at(9090)]],
  [[own(mtls('PERMISSIVE', { 9090: 'PERMISSIVE' }))], null, null],
  [[own(mtls('UNSET', { 8080: 'STRICT', 9090: 'STRICT' }))], CONVERTED, [at(8080), at(9090)]],
  [
    [ofMesh('STRICT'), own(mtls('UNSET', { 9090: 'PERMISSIVE', 8080: 'STRICT' }))],
    CONVERTED,
    [[[S], ...outside(9090)]],
  ],
  [
    [ofMesh('PERMISSIVE'), ofNamespace('STRICT'), own(mtls('UNSET', { 9090: 'PERMISSIVE' }))],
    CONVERTED,
    [[[S], ...outside(9090)]],
  ],
  [[ofMesh('STRICT'), ofNamespace('PERMISSIVE'), own(mtls('UNSET', { 9090: 'STRICT' }))], CONVERTED, [at(9090)]],
  [
    [ofMesh('PERMISSIVE'), ofNamespace('UNSET'), own(mtls('UNSET', { 9090: 'STRICT', 8080: 'PERMISSIVE' }))],
    CONVERTED,
    [at(9090)],
  ],
  // Where istiod lets workloads list a policy that does not exist, which leaves them open.
  [[ofMesh('STRICT'), own(mtls('PERMISSIVE', { 9090: 'STRICT' }))], CONVERTED, [at(9090)]],
  [
    [ofMesh('STRICT'), ofNamespace('UNSET'), own(mtls('UNSET', { 9090: 'PERMISSIVE' }))],
    CONVERTED,
    [[[S], ...outside(9090)]],
  ],
  // Selectors of the root namespace are for nobody; one that asks nothing is for its namespace.
  [
    [
      peerAuthentication(
        'x',
        { selector: { matchLabels: { app: 'web' } }, ...mtls('STRICT') },
        { namespace: 'istio-system' },
      ),
    ],
    null,
    null,
  ],
  [[peerAuthentication('x', { selector: {}, ...mtls('STRICT') })], STATIC, null],
  // In the root namespace such a one does not open the mesh.
  ...(['PERMISSIVE', 'DISABLE', 'UNSET'] as const).map((mode) => [
    [ofMesh('STRICT'), peerAuthentication('a', { selector: {}, mtls: { mode } }, { namespace: 'istio-system' })],
    STATIC,
    null,
  ]),
  [[peerAuthentication('a', { selector: {}, ...mtls('STRICT') }, { namespace: 'istio-system' })], STATIC, null],
  [[ofMesh('STRICT'), peerAuthentication('x', { selector: {}, ...mtls('PERMISSIVE') })], null, null],
] as [Manifest[], string | null, Json[][][] | null][]) {
  test(`mTLS by ${objects.map(({ metadata, spec }) => `${metadata.name} ${JSON.stringify(spec)}`).join(' under ') || 'nothing'}`, async () => {
    const { mesh, put, address, policy, rejected } = meshUnderTest();
    await put(pod('web'), ...objects);
    assert.deepEqual(rejected, []);
    assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, key === null ? [] : [key]);
    const rules = policy(CONVERTED)?.rules as { clauses: { matches: Json[] }[] }[] | undefined;
    const asked = (match: Json) =>
      Object.fromEntries(Object.entries(match).filter(([, list]) => (list as unknown[]).length > 0));
    assert.deepEqual(rules?.map(({ clauses }) => clauses.map(({ matches }) => matches.map(asked))) ?? null, groups);
    // It is there as soon as there is any, and acts on who lists it only.
    assert.equal(policy(STATIC) !== null, objects.length > 0);
    assert.deepEqual([policy(STATIC)?.scope ?? 2, policy(STATIC)?.action ?? 1], [2, 1]);
    assert.equal(mesh.resources.counts().policies, (objects.length > 0 ? 1 : 0) + (groups === null ? 0 : 1));
  });
}

test('an agent lets plain text in where the innermost mode that is set says so, and nowhere else', async () => {
  const modes = [null, 'UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT'] as const;
  const isSet = (mode: Mode | null) => mode !== null && mode !== 'UNSET';
  let strict = 0;
  for (const root of modes) {
    for (const namespace of modes) {
      for (const workload of modes) {
        for (const port of workload === null ? [null] : modes) {
          const { mesh, put } = meshUnderTest();
          const objects = [
            ...(root === null ? [] : [ofMesh(root)]),
            ...(namespace === null ? [] : [ofNamespace(namespace)]),
            ...(workload === null ? [] : [own(mtls(workload, port === null ? {} : { 8080: port }))]),
          ];
          await put(pod('web'), ...objects);
          const agent = agentView(mesh.resources);
          const of = (...levels: (Mode | null)[]) => levels.find(isSet) === 'STRICT';
          const shown = JSON.stringify({ root, namespace, workload, port });
          const plain = (destinationPort: number) =>
            letsIn(agent, uidOf('web'), { sourceIdentity: null, destinationPort });
          assert.equal(plain(8080), !of(port, workload, namespace, root), `port 8080 of ${shown}`);
          assert.equal(plain(9090), !of(workload, namespace, root), `port 9090 of ${shown}`);
          assert.ok(letsIn(agent, uidOf('web')), `mTLS with ${shown}`);
          if (!plain(8080)) strict++;
        }
      }
    }
  }
  assert.ok(strict > 100);
});

test('of several for the same the oldest counts', async () => {
  const { put, address, remove } = meshUnderTest();
  const made = (name: string, second: number, mode: Mode) =>
    peerAuthentication(name, { mtls: { mode } }, { creationTimestamp: `2026-01-01T00:00:0${second}Z` });
  await put(pod('web'), made('a', 2, 'STRICT'), made('b', 1, 'PERMISSIVE'));
  assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, []);
  await remove('PeerAuthentication', 'demo/b');
  assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, [STATIC]);
  await put(made('c', 1, 'PERMISSIVE'));
  assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, []);
});

test('a change above changes the converted policies below and the workloads that list them', async () => {
  const { mesh, put, remove, changes } = meshUnderTest();
  await put(pod('web'), pod('other'), own(mtls('UNSET', { 9090: 'PERMISSIVE', 8080: 'STRICT' })));
  changes();
  await put(ofNamespace('STRICT'));
  assert.deepEqual(changes(), { addresses: [uidOf('other')], policies: [CONVERTED] });
  await put(ofMesh('PERMISSIVE'));
  assert.deepEqual(changes(), { addresses: [], policies: [] });
  await remove('PeerAuthentication', 'demo/ns');
  assert.deepEqual(changes(), { addresses: [uidOf('other')], policies: [CONVERTED] });
  await remove('PeerAuthentication', 'demo/own');
  await remove('PeerAuthentication', 'istio-system/mesh');
  assert.deepEqual(changes(), { addresses: [uidOf('web')], policies: [CONVERTED, STATIC] });
  assert.equal(mesh.resources.counts().policies, 0);
});

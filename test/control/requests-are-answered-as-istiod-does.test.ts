/** Requests of delta ADS and what follows from each (control-01 §7.2 to §7.5). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { decode, encode } from '../support/xds-schema.ts';
import { hostname, policy, service, uid, workload } from '../xds/support/client-under-test.ts';
import {
  ADDRESS,
  AUTHORIZATION,
  NODE,
  openPeer,
  type Peer,
  type PeerRequest,
  startControlPlane,
  struct,
  WORKLOAD,
} from './support/xds-peer.ts';

const web = `demo/${hostname('web')}`;
const changes = {
  addresses: {
    [uid('a')]: workload('a', { services: { [web]: { ports: [] } } }),
    [uid('b')]: workload('b', { addresses: [Buffer.of(10, 0, 0, 2)], node: 'node-b' }),
    [web]: service('web'),
  },
  policies: { 'demo/p': policy('p'), 'demo/q': policy('q') },
};
const EVERYTHING = [uid('a'), uid('b'), web].sort();

test('everything comes in one response, with the bytes and versions of the mesh', async (t) => {
  const control = await startControlPlane(t, { changes });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS });
  const response = await peer.take();
  assert.equal(response.typeUrl, ADDRESS);
  assert.deepEqual(response.names, EVERYTHING);
  for (const [name, sent] of response.resources) {
    const { version, body } = control.mesh.address(name)!;
    assert.deepEqual(sent, { version, aliases: [], typeUrl: ADDRESS, value: Buffer.from(body) });
  }
  assert.match(response.version, /^\d{4}-\d\d-\d\dT[\d:.]+Z\/\d+$/);
  assert.ok(response.nonce.startsWith(response.version) && response.nonce.length > response.version.length);
});

test('policies come without versions', async (t) => {
  const control = await startControlPlane(t, { changes });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: AUTHORIZATION });
  const response = await peer.take();
  assert.deepEqual(response.names, ['demo/p', 'demo/q']);
  assert.deepEqual(response.resources.get('demo/p'), {
    version: '',
    aliases: [],
    typeUrl: AUTHORIZATION,
    value: encode('Authorization', policy('p')),
  });
});

test('the type Workload has workloads only, without what is around them', async (t) => {
  const control = await startControlPlane(t, { changes });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: WORKLOAD });
  const response = await peer.take();
  assert.deepEqual(response.names, [uid('a'), uid('b')]);
  const { typeUrl, value } = response.resources.get(uid('a'))!;
  assert.equal(typeUrl, WORKLOAD);
  assert.equal(decode('Workload', value).uid, uid('a'));
  control.mesh.change({ addresses: { [web]: null, [uid('b')]: workload('b', { node: 'node-c' }) } });
  const push = await peer.take();
  assert.deepEqual([push.names, push.removed], [[uid('b')], [web]]);
});

test('an empty mesh is answered as well', async (t) => {
  const peer = openPeer(t, await startControlPlane(t));
  for (const typeUrl of [ADDRESS, AUTHORIZATION, WORKLOAD]) {
    peer.ask({ typeUrl });
    const response = await peer.take();
    assert.deepEqual([response.typeUrl, response.names, response.removed], [typeUrl, [], []]);
  }
});

/** What comes second, after everything was sent and acknowledged; null for nothing. */
const further: readonly [string, (nonce: string) => PeerRequest, { names: string[]; removed: string[] } | null][] = [
  ['an acknowledgement again', (nonce) => ({ typeUrl: ADDRESS, nonce }), null],
  ['a nonce that was never sent', () => ({ typeUrl: ADDRESS, nonce: 'x', subscribe: ['y'] }), null],
  ['a rejection with a nonce that was never sent', () => ({ typeUrl: ADDRESS, nonce: 'x', error: 'bad' }), null],
  ['a request that says nothing', () => ({ typeUrl: ADDRESS }), null],
  ['a name that there is', () => ({ typeUrl: ADDRESS, subscribe: [uid('a')] }), { names: EVERYTHING, removed: [] }],
  ['a name that there is not', () => ({ typeUrl: ADDRESS, subscribe: ['x'] }), { names: EVERYTHING, removed: ['x'] }],
  ['a name less', () => ({ typeUrl: ADDRESS, unsubscribe: ['x'] }), { names: EVERYTHING, removed: [] }],
  ['everything again', () => ({ typeUrl: ADDRESS, subscribe: ['*'] }), { names: EVERYTHING, removed: [] }],
  [
    'another type for the first time, even with a nonce',
    () => ({ typeUrl: AUTHORIZATION, nonce: 'of another stream' }),
    { names: ['demo/p', 'demo/q'], removed: [] },
  ],
  ['a type that is not served', () => ({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' }), null],
];

for (const [what, request, expected] of further) {
  test(`${what} is ${expected === null ? 'not answered' : 'answered'}`, async (t) => {
    const control = await startControlPlane(t, { changes });
    const peer = openPeer(t, control);
    peer.ask({ typeUrl: ADDRESS });
    const { nonce } = await peer.take();
    peer.ask(request(nonce));
    if (expected !== null) {
      const { names, removed } = await peer.take();
      assert.deepEqual({ names, removed }, expected);
    }
    await nothingElse(control.mesh, peer);
  });
}

/** How the first request says what is wanted. */
const first: readonly [string, Partial<PeerRequest>, { names: string[]; removed: string[] }][] = [
  ['nothing', {}, { names: EVERYTHING, removed: [] }],
  ['*', { subscribe: ['*'] }, { names: EVERYTHING, removed: [] }],
  ['* and a name', { subscribe: ['*', uid('a')] }, { names: EVERYTHING, removed: [] }],
  ['* and not *', { subscribe: ['*'], unsubscribe: ['*'], node: { id: NODE.id } }, { names: [], removed: [] }],
  [
    '* and not *, on a node with workloads',
    { subscribe: ['*'], unsubscribe: ['*'] },
    { names: [uid('a')], removed: [] },
  ],
  ['only what it holds', { versions: { [uid('gone')]: '1' } }, { names: EVERYTHING, removed: [uid('gone')] }],
];

for (const [what, request, expected] of first) {
  test(`a first request for ${what}`, async (t) => {
    const control = await startControlPlane(t, { changes });
    const peer = openPeer(t, control);
    peer.ask({ typeUrl: ADDRESS, ...request });
    const { names, removed } = await peer.take();
    assert.deepEqual({ names, removed }, expected);
  });
}

/** Requests that end their stream. */
const refused: readonly [string, PeerRequest, number, RegExp][] = [
  ['no node', { typeUrl: ADDRESS, node: null }, status.INVALID_ARGUMENT, /^missing node information$/],
  ['no node id', { typeUrl: ADDRESS, node: { id: '' } }, status.INVALID_ARGUMENT, /^missing node information$/],
  ['half a node id', { typeUrl: ADDRESS, node: { id: 'ztunnel~1.1.1.1' } }, status.INVALID_ARGUMENT, /node id/],
  [
    'the node id of another namespace',
    { typeUrl: ADDRESS, node: { id: 'ztunnel~1.1.1.1~x.other~other.svc.cluster.local' } },
    status.PERMISSION_DENIED,
    /mesh\/agent is not that of the node, other\/\*/,
  ],
  [
    'another namespace in its metadata',
    { typeUrl: ADDRESS, node: { ...NODE, metadata: struct({ NAMESPACE: 'other' }) } },
    status.PERMISSION_DENIED,
    /not that of the node/,
  ],
  [
    'another service account',
    { typeUrl: ADDRESS, node: { ...NODE, metadata: struct({ SERVICE_ACCOUNT: 'root' }) } },
    status.PERMISSION_DENIED,
    /mesh\/root/,
  ],
];

for (const [what, request, code, details] of refused) {
  test(`${what} ends the stream`, async (t) => {
    const control = await startControlPlane(t, { changes });
    const peer = openPeer(t, control);
    peer.ask(request);
    const end = await peer.ended;
    assert.equal(end.code, code);
    assert.match(end.details, details);
    assert.deepEqual(peer.held(), []);
    assert.deepEqual(control.ads.clients(), []);
  });
}

test('who is nobody is told so before it has said anything', async (t) => {
  const control = await startControlPlane(t);
  const end = await openPeer(t, control, 'nobody').ended;
  assert.deepEqual([end.code, end.details], [status.UNAUTHENTICATED, 'request authenticate failure']);
  assert.match(control.metrics(), /culvert_control_xds_refused_total\{reason="UNAUTHENTICATED"\} 1/);
});

test('nothing is served before everything is known', async (t) => {
  const control = await startControlPlane(t, { changes });
  control.synced = false;
  const end = await openPeer(t, control).ended;
  assert.equal(end.code, status.UNAVAILABLE);
  assert.match(end.details, /not ready/);
  control.synced = true;
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS });
  assert.deepEqual((await peer.take()).names, EVERYTHING);
});

/** The next thing that comes is a change that is made now. */
async function nothingElse(mesh: Awaited<ReturnType<typeof startControlPlane>>['mesh'], peer: Peer): Promise<void> {
  mesh.change({ addresses: { [uid('later')]: workload('later') } });
  const { names, removed } = await peer.take();
  assert.deepEqual({ names, removed }, { names: [uid('later')], removed: [] });
}

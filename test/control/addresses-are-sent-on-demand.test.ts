/** Clients that ask for addresses by name (control-01 §7.4). */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { hostname, service, uid, workload } from '../xds/support/client-under-test.ts';
import { ADDRESS, NODE, openPeer, type Peer, startControlPlane } from './support/xds-peer.ts';

const web = `demo/${hostname('web')}`;
const member = { services: { [web]: { ports: [] } }, node: 'node-b' };
const address = (last: number) => ({ addresses: [Buffer.of(10, 0, 0, last)] });
const addresses = {
  [web]: service('web', { addresses: [{ network: '', address: Buffer.of(10, 96, 0, 7) }] }),
  [uid('a')]: workload('a', { ...member, ...address(1) }),
  [uid('b')]: workload('b', { ...member, ...address(2) }),
  [uid('c')]: workload('c', { node: 'node-b', ...address(3) }),
  [uid('local')]: workload('local', { node: 'node-a', ...address(4) }),
};

/** A peer on node-a that has subscribed to nothing so far. */
async function onDemand(t: TestContext, node: object = NODE) {
  const control = await startControlPlane(t, { changes: { addresses } });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, subscribe: ['*'], unsubscribe: ['*'], node });
  return { mesh: control.mesh, control, peer, first: await peer.take() };
}

async function demand(peer: Peer, ...subscribe: string[]) {
  peer.ask({ typeUrl: ADDRESS, subscribe });
  return peer.take();
}

test('the workloads of its own node come unasked, with their other names', async (t) => {
  const { mesh, peer, first } = await onDemand(t);
  assert.deepEqual(first.names, [uid('local')]);
  assert.deepEqual(first.resources.get(uid('local'))!.aliases, ['/10.0.0.4']);
  mesh.change({ addresses: { [uid('new')]: workload('new', { node: 'node-a', ...address(9) }) } });
  assert.deepEqual((await peer.take()).names, [uid('new')]);
  mesh.change({ addresses: { [uid('new')]: null } });
  assert.deepEqual((await peer.take()).removed, [uid('new')]);
});

/** What is asked for, and what comes. */
const demands: readonly [string, string, { names: string[]; removed: string[] }][] = [
  ['a workload by its uid', uid('c'), { names: [uid('c')], removed: [] }],
  ['a workload by its address', '/10.0.0.3', { names: [uid('c')], removed: [] }],
  ['a service by its hostname', web, { names: [uid('a'), uid('b'), web].sort(), removed: [] }],
  ['a service by its address', '/10.96.0.7', { names: [uid('a'), uid('b'), web].sort(), removed: [] }],
  ['an address that nobody has', '/10.0.0.99', { names: [], removed: ['/10.0.0.99'] }],
];

for (const [what, key, expected] of demands) {
  test(`${what} is answered`, async (t) => {
    const { peer } = await onDemand(t, { id: NODE.id });
    const { names, removed, resources } = await demand(peer, key);
    assert.deepEqual({ names, removed }, expected);
    for (const [name, { aliases }] of resources) {
      if (key.startsWith('/') && name !== uid('a') && name !== uid('b')) assert.ok(aliases.includes(key));
    }
  });
}

test('an answer has what was asked for just now, and nothing of what was asked for before', async (t) => {
  const { peer } = await onDemand(t);
  await demand(peer, uid('c'));
  assert.deepEqual((await demand(peer, uid('a'))).names, [uid('a')]);
});

test('only what was asked for is kept up to date', async (t) => {
  const { mesh, peer } = await onDemand(t);
  await demand(peer, web);
  const changed = { canonicalName: 'x' };
  mesh.change({
    addresses: {
      [uid('a')]: workload('a', { ...member, ...changed }),
      [uid('c')]: workload('c', { node: 'node-b', ...changed }),
      [uid('d')]: workload('d', { ...member, ...address(8) }),
      [uid('b')]: null,
    },
  });
  const { names, removed } = await peer.take();
  assert.deepEqual([names, removed], [[uid('a'), uid('d')], [uid('b')]]);
});

test('what was asked for in vain comes when it is there', async (t) => {
  const { mesh, peer } = await onDemand(t);
  await demand(peer, '/10.0.0.50', uid('late'));
  mesh.change({ addresses: { [uid('other')]: workload('other', { node: 'node-b', ...address(50) }) } });
  assert.deepEqual((await peer.take()).names, [uid('other')]);
  mesh.change({ addresses: { [uid('late')]: workload('late', { node: 'node-b', ...address(51) }) } });
  assert.deepEqual((await peer.take()).names, [uid('late')]);
});

test('an address that goes from one pod to another is followed', async (t) => {
  const { mesh, peer } = await onDemand(t);
  await demand(peer, '/10.0.0.3');
  mesh.change({
    addresses: { [uid('c')]: null, [uid('heir')]: workload('heir', { node: 'node-b', ...address(3) }) },
  });
  const { names, removed } = await peer.take();
  assert.deepEqual([names, removed], [[uid('heir')], [uid('c')]]);
});

test('what is not wanted any more is not sent', async (t) => {
  const { mesh, peer } = await onDemand(t);
  await demand(peer, uid('c'));
  peer.ask({ typeUrl: ADDRESS, unsubscribe: [uid('c')] });
  const { names, removed } = await peer.take();
  assert.deepEqual([names, removed], [[], []]);
  mesh.change({ addresses: { [uid('c')]: workload('c', { node: 'x' }) } });
  mesh.change({ addresses: { [uid('local')]: workload('local', { node: 'node-a', canonicalName: 'x' }) } });
  assert.deepEqual((await peer.take()).names, [uid('local')]);
});

test('who asks for everything later gets it', async (t) => {
  const { mesh, peer } = await onDemand(t);
  assert.deepEqual((await demand(peer, '*')).names, Object.keys(addresses).sort());
  mesh.change({ addresses: { [uid('c')]: null } });
  assert.deepEqual((await peer.take()).removed, [uid('c')]);
});

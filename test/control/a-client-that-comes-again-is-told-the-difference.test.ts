/** Reconnects: what the client holds is not sent again, what is gone is removed (control-01 §7.3, §7.5). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostname, policy, service, uid, workload } from '../xds/support/client-under-test.ts';
import { ADDRESS, AUTHORIZATION, openPeer, startControlPlane } from './support/xds-peer.ts';

const web = `demo/${hostname('web')}`;
const changes = {
  addresses: { [uid('a')]: workload('a'), [uid('b')]: workload('b'), [web]: service('web') },
  policies: { 'demo/p': policy('p') },
};

test('unchanged ones are left out, deleted ones removed, stale and unknown ones sent', async (t) => {
  const control = await startControlPlane(t, { changes });
  const versions = {
    [uid('a')]: control.mesh.address(uid('a'))!.version,
    [uid('b')]: 'stale',
    [uid('gone')]: 'x',
    'demo/gone.demo.svc.cluster.local': 'y',
  };
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, versions });
  const { names, removed } = await peer.take();
  assert.deepEqual(names, [uid('b'), web].sort());
  assert.deepEqual(removed, [uid('gone'), 'demo/gone.demo.svc.cluster.local']);
  control.mesh.change({ addresses: { [uid('a')]: null } });
  assert.deepEqual((await peer.take()).removed, [uid('a')]);
});

test('who holds everything is told so by an empty response', async (t) => {
  const control = await startControlPlane(t, { changes });
  const versions = Object.fromEntries([...control.mesh.addresses()].map(({ name, version }) => [name, version]));
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, versions });
  const { names, removed } = await peer.take();
  assert.deepEqual([names, removed], [[], []]);
});

test('policies are all sent, and those that are gone removed', async (t) => {
  const control = await startControlPlane(t, { changes });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: AUTHORIZATION, versions: { 'demo/p': '', 'demo/gone': '' } });
  const { names, removed } = await peer.take();
  assert.deepEqual([names, removed], [['demo/p'], ['demo/gone']]);
});

test('with both types, policies come first and those that are gone go last, whatever is asked for first', async (t) => {
  const control = await startControlPlane(t, { changes, limits: { policiesExpectedMs: 20_000 } });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, versions: { [uid('a')]: 'stale' } });
  peer.ask({ typeUrl: AUTHORIZATION, versions: { 'demo/gone': '' } });
  const responses = [await peer.take(), await peer.take(), await peer.take()];
  assert.deepEqual(
    responses.map(({ typeUrl, names, removed }) => [typeUrl, names.length, removed]),
    [
      [AUTHORIZATION, 1, []],
      [ADDRESS, 3, []],
      [AUTHORIZATION, 0, ['demo/gone']],
    ],
  );
});

test('what is reported for a client on demand is kept up to date', async (t) => {
  const control = await startControlPlane(t, { changes });
  const peer = openPeer(t, control);
  peer.ask({
    typeUrl: ADDRESS,
    subscribe: ['*'],
    unsubscribe: ['*'],
    versions: { [uid('a')]: control.mesh.address(uid('a'))!.version, [web]: 'stale', '/10.9.9.9': '' },
  });
  const { names, removed } = await peer.take();
  // The other workload of its node was not reported.
  assert.deepEqual([names, removed], [[uid('b'), web].sort(), ['/10.9.9.9']]);
  control.mesh.change({ addresses: { [uid('a')]: null } });
  assert.deepEqual((await peer.take()).removed, [uid('a')]);
});

test('a request of thousands of names is answered', async (t) => {
  const control = await startControlPlane(t, { changes });
  const versions = Object.fromEntries(Array.from({ length: 50_000 }, (_, index) => [uid(`pod-${index}`), 'v']));
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, versions });
  const { names, removed } = await peer.take();
  assert.deepEqual([names.length, removed.length], [3, 50_000]);
});

/** Reconnects: what the client holds is not sent again, what is gone is removed (control-01 §7.3, §7.5). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../cni/support/eventually.ts';
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
  assert.deepEqual([names, removed], [['demo/p'], []]);
  assert.deepEqual((await peer.take()).removed, ['demo/gone']);
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

const selecting = (name: string, more = {}) => policy(name, { scope: 'WORKLOAD_SELECTOR', ...more });

test('a policy that may have been narrowed meanwhile comes after the addresses, whatever is asked for first', async (t) => {
  const workloads = { [uid('a')]: workload('a', { authorizationPolicies: ['demo/narrow', 'demo/new'] }) };
  const policies = { 'demo/narrow': selecting('narrow'), 'demo/new': selecting('new'), 'demo/wide': policy('wide') };
  const control = await startControlPlane(t, {
    changes: { addresses: workloads, policies },
    limits: { policiesExpectedMs: 20_000 },
  });
  const requests = [
    { typeUrl: ADDRESS, versions: { [uid('a')]: 'stale' } },
    // What holds for all by now must come before workloads that do not list it any more.
    { typeUrl: AUTHORIZATION, versions: { 'demo/narrow': '', 'demo/wide': '', 'demo/gone': '' } },
  ];
  for (const order of [requests, requests.toReversed()]) {
    const peer = openPeer(t, control);
    for (const request of order) peer.ask(request);
    const responses = [await peer.take(), await peer.take(), await peer.take()];
    assert.deepEqual(
      responses.map(({ typeUrl, names, removed }) => [typeUrl, names, removed]),
      [
        [AUTHORIZATION, ['demo/new', 'demo/wide'], []],
        [ADDRESS, [uid('a')], []],
        [AUTHORIZATION, ['demo/narrow'], ['demo/gone']],
      ],
    );
  }
});

test('a policy that waits for the addresses waits for those of later changes, too', async (t) => {
  const lists = (...keys: string[]) => workload('a', { authorizationPolicies: keys });
  const control = await startControlPlane(t, {
    changes: {
      addresses: { [uid('a')]: lists('demo/p') },
      policies: { 'demo/p': selecting('p'), 'demo/q': policy('q') },
    },
    limits: { policiesExpectedMs: 20_000 },
  });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, versions: { [uid('a')]: 'stale' } });
  peer.ask({ typeUrl: AUTHORIZATION, versions: { 'demo/p': '', 'demo/q': '' } });
  const first = await peer.hold();
  assert.deepEqual([first.typeUrl, first.names], [AUTHORIZATION, ['demo/q']]);
  const addresses = await peer.hold();
  assert.deepEqual([addresses.typeUrl, addresses.names], [ADDRESS, [uid('a')]]);
  // The client has not said a word to the addresses yet.
  control.mesh.change({ policies: { 'demo/p': selecting('p', { action: 'ALLOW' }) } });
  control.mesh.change({
    policies: { 'demo/q': selecting('q') },
    addresses: { [uid('a')]: lists('demo/p', 'demo/q') },
  });
  await eventually('the changes wait', () => control.ads.clients()[0]!.types[0]!.waiting === 1);
  peer.ask({ typeUrl: AUTHORIZATION, nonce: first.nonce });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(peer.held(), []);
  peer.ask({ typeUrl: ADDRESS, nonce: addresses.nonce });
  const rest = [await peer.take(), await peer.take()];
  assert.deepEqual(
    rest.map(({ typeUrl, names, removed }) => [typeUrl, names, removed]),
    [
      [ADDRESS, [uid('a')], []],
      [AUTHORIZATION, ['demo/p', 'demo/q'], []],
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

test('many names are answered in several responses', async (t) => {
  const control = await startControlPlane(t, { changes });
  const peer = openPeer(t, control);
  const unknown = Array.from({ length: 25_000 }, (_, index) => uid(`pod-${index}`));
  peer.ask({
    typeUrl: ADDRESS,
    subscribe: [...unknown, uid('a')],
    versions: { [uid('b')]: 'stale', [uid('gone')]: '' },
  });
  const responses = [await peer.take(), await peer.take(), await peer.take()];
  assert.deepEqual(new Set(responses.flatMap(({ names }) => names)), new Set([uid('a'), uid('b')]));
  assert.deepEqual(new Set(responses.flatMap(({ removed }) => removed)), new Set([...unknown, uid('gone')]));
});

test('a request of thousands of names is answered', async (t) => {
  const control = await startControlPlane(t, { changes });
  const versions = Object.fromEntries(Array.from({ length: 50_000 }, (_, index) => [uid(`pod-${index}`), 'v']));
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS, versions });
  const { names, removed } = await peer.take();
  assert.deepEqual([names.length, removed.length], [3, 50_000]);
});

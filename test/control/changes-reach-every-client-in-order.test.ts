/** Pushes: what is collected, in which order it goes out, and what a client says to it (control-01 §7.3 to §7.6). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { eventually } from '../cni/support/eventually.ts';
import { hostname, policy, service, uid, workload } from '../xds/support/client-under-test.ts';
import { meshUnderTest } from './support/mesh-under-test.ts';
import { serviceEntry } from './support/objects.ts';
import { ADDRESS, AUTHORIZATION, openPeer, type Peer, startControlPlane } from './support/xds-peer.ts';

const web = `demo/${hostname('web')}`;
const lists = (name: string, ...keys: string[]) => workload(name, { authorizationPolicies: keys });

/** A peer that has everything of both types. */
async function synced(peer: Peer): Promise<Peer> {
  peer.ask({ typeUrl: ADDRESS });
  peer.ask({ typeUrl: AUTHORIZATION });
  await peer.take();
  await peer.take();
  return peer;
}

test('changes that come together are sent together, and only what has changed', async (t) => {
  const control = await startControlPlane(t, { limits: { debounceMs: 200 } });
  control.mesh.change({
    addresses: { [uid('a')]: workload('a'), [uid('b')]: workload('b'), [uid('c')]: workload('c') },
  });
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ addresses: { [uid('a')]: workload('a', { node: 'x' }), [uid('d')]: workload('d') } });
  control.mesh.change({ addresses: { [uid('b')]: null, [uid('d')]: null } });
  const push = await peer.take();
  assert.deepEqual([push.names, push.removed], [[uid('a')], [uid('b'), uid('d')]]);
});

test('changes that never pause are sent all the same', async (t) => {
  const control = await startControlPlane(t, { limits: { debounceMs: 5000, debounceMaxMs: 300 } });
  const peer = await synced(openPeer(t, control));
  let round = 0;
  const changing = setInterval(() => {
    control.mesh.change({ addresses: { [uid('a')]: workload('a', { node: `n${round++}` }) } });
  }, 5);
  t.after(() => clearInterval(changing));
  for (let pushes = 0; pushes < 3; pushes++) assert.deepEqual((await peer.take()).names, [uid('a')]);
});

test('a service that changes comes with its workloads', async (t) => {
  const of = { services: { [web]: { ports: [] } } };
  const addresses = { [web]: service('web'), [uid('a')]: workload('a', of), [uid('b')]: workload('b') };
  const control = await startControlPlane(t, { changes: { addresses } });
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ addresses: { [web]: service('web', { ports: [] }) } });
  assert.deepEqual((await peer.take()).names, [uid('a'), web].sort());
});

test('policies come before the workloads that list them, and go after', async (t) => {
  const control = await startControlPlane(t, { changes: { addresses: { [uid('a')]: workload('a') } } });
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ addresses: { [uid('a')]: lists('a', 'demo/p') }, policies: { 'demo/p': policy('p') } });
  const added = [await peer.take(), await peer.take()];
  assert.deepEqual(
    added.map(({ typeUrl, names }) => [typeUrl, names]),
    [
      [AUTHORIZATION, ['demo/p']],
      [ADDRESS, [uid('a')]],
    ],
  );
  control.mesh.change({
    addresses: { [uid('a')]: lists('a', 'demo/q') },
    policies: { 'demo/p': null, 'demo/q': policy('q') },
  });
  const replaced = [await peer.take(), await peer.take(), await peer.take()];
  assert.deepEqual(
    replaced.map(({ typeUrl, names, removed }) => [typeUrl, names, removed]),
    [
      [AUTHORIZATION, ['demo/q'], []],
      [ADDRESS, [uid('a')], []],
      [AUTHORIZATION, [], ['demo/p']],
    ],
  );
});

test('a policy that is narrowed comes after the workloads that list it', async (t) => {
  const narrow = { scope: 'WORKLOAD_SELECTOR' };
  const changes = { addresses: { [uid('a')]: workload('a') }, policies: { 'demo/p': policy('p') } };
  const control = await startControlPlane(t, { changes });
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ policies: { 'demo/q': policy('q') } });
  control.mesh.change({ addresses: { [uid('a')]: lists('a', 'demo/p', 'demo/q') } });
  control.mesh.change({ policies: { 'demo/p': policy('p', narrow), 'demo/q': null } });
  control.mesh.change({ addresses: { [uid('a')]: lists('a', 'demo/p') } });
  const narrowed = [await peer.take(), await peer.take()];
  assert.deepEqual(
    narrowed.map(({ typeUrl, names, removed }) => [typeUrl, names, removed]),
    [
      [ADDRESS, [uid('a')], []],
      [AUTHORIZATION, ['demo/p'], ['demo/q']],
    ],
  );
  // And altered again, it is as any other.
  control.mesh.change({ policies: { 'demo/p': policy('p', { ...narrow, action: 'ALLOW' }) } });
  const altered = await peer.take();
  assert.deepEqual([altered.typeUrl, altered.names], [AUTHORIZATION, ['demo/p']]);
});

test('a policy that is removed and made again for fewer in one push comes after the workloads that list it', async (t) => {
  const changes = { addresses: { [uid('a')]: workload('a') }, policies: { 'demo/p': policy('p') } };
  const control = await startControlPlane(t, { changes });
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ policies: { 'demo/p': null } });
  control.mesh.change({ policies: { 'demo/p': policy('p', { scope: 'WORKLOAD_SELECTOR' }) } });
  control.mesh.change({ addresses: { [uid('a')]: lists('a', 'demo/p') } });
  const pushes = [await peer.take(), await peer.take()];
  assert.deepEqual(
    pushes.map(({ typeUrl, names, removed }) => [typeUrl, names, removed]),
    [
      [ADDRESS, [uid('a')], []],
      [AUTHORIZATION, ['demo/p'], []],
    ],
  );
});

test('workloads wait for policies that cannot be sent yet', async (t) => {
  const control = await startControlPlane(t, { changes: { addresses: { [uid('a')]: workload('a') } } });
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ policies: { 'demo/p': policy('p') } });
  const first = await peer.hold();
  assert.deepEqual([first.typeUrl, first.names], [AUTHORIZATION, ['demo/p']]);
  control.mesh.change({ addresses: { [uid('a')]: lists('a', 'demo/q') }, policies: { 'demo/q': policy('q') } });
  // A change without new policies would come if it were not for the one before it.
  control.mesh.change({ addresses: { [uid('b')]: workload('b') } });
  await eventually('the changes wait', () => control.ads.clients()[0]!.types[0]!.waiting === 2);
  assert.deepEqual(peer.held(), []);
  peer.ask({ typeUrl: AUTHORIZATION, nonce: first.nonce });
  assert.deepEqual((await peer.take()).names, ['demo/q']);
  assert.deepEqual((await peer.take()).names, [uid('a'), uid('b')]);
});

test('endpoints that others take the place of go when those are there', async (t) => {
  const COUNT = 5000;
  const large = (net: number) =>
    serviceEntry('large', {
      spec: {
        addresses: ['240.0.0.1'],
        endpoints: Array.from({ length: COUNT }, (_, index) => ({ address: `10.${net}.${index >> 8}.${index & 255}` })),
      },
    });
  const { mesh, put } = meshUnderTest();
  await put(large(1));
  const { resources } = mesh;
  const control = await startControlPlane(t, { mesh: { ...resources, change() {} }, limits: { debounceMs: 1 } });
  const peer = openPeer(t, control);
  for (const typeUrl of [ADDRESS, AUTHORIZATION]) peer.ask({ typeUrl });
  const held = new Set<string>();
  async function take(): Promise<number> {
    const { names, removed } = await peer.take();
    for (const name of names) if (name.includes('/ServiceEntry/')) held.add(name);
    for (const name of removed) held.delete(name);
    return held.size;
  }
  while ((await take()) < COUNT);

  let isOver = false;
  const edit = put(large(2)).then(() => {
    isOver = true;
  });
  const counts: number[] = [];
  const isNew = () => held.size === COUNT && [...held].every((name) => name.includes('/10.2.'));
  const follow = (async () => {
    while (!isNew()) counts.push(await take());
  })();
  // As each client does that is owed something: it gets what there is.
  let fewest = Infinity;
  while (!isOver) {
    resources.announce();
    fewest = Math.min(fewest, resources.counts().addresses - 1);
    await setImmediate();
  }
  await Promise.all([edit, follow]);
  assert.ok(Math.min(fewest, ...counts) >= COUNT, `there were ${fewest}, and held ${counts}`);
});

test('one response of a type is on its way at a time, and what changes meanwhile is sent once', async (t) => {
  const control = await startControlPlane(t);
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ addresses: { [uid('a')]: workload('a') } });
  const held = await peer.hold();
  for (let round = 0; round < 20; round++) {
    control.mesh.change({ addresses: { [uid('a')]: workload('a', { node: `n${round}` }), [uid('b')]: workload('b') } });
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  control.mesh.change({ addresses: { [uid('b')]: null } });
  await eventually('the changes wait', () => control.ads.clients()[0]!.types[0]!.waiting === 2);
  const status = control.ads.clients()[0]!.types[0]!;
  assert.ok(status.unacknowledgedMs !== null);
  assert.deepEqual(peer.held(), []);
  peer.ask({ typeUrl: ADDRESS, nonce: held.nonce });
  const merged = await peer.take();
  assert.deepEqual([merged.names, merged.removed], [[uid('a')], [uid('b')]]);
  assert.equal(merged.resources.get(uid('a'))!.version, control.mesh.address(uid('a'))!.version);
});

test('a rejection is kept with its reason, and what changes next is sent all the same', async (t) => {
  const control = await startControlPlane(t);
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ addresses: { [uid('a')]: workload('a') } });
  const { nonce, version } = await peer.hold();
  peer.ask({ typeUrl: ADDRESS, nonce, error: `${uid('a')}: I do\nnot like it` });
  await eventually('it is known', () => control.ads.clients()[0]!.types[0]!.rejections === 1);
  const { lastRejection, acknowledged, sent } = control.ads.clients()[0]!.types[0]!;
  assert.equal(lastRejection!.reason, `${uid('a')}: I do not like it`);
  assert.equal(lastRejection!.version, version);
  assert.equal(sent!.version, version);
  assert.notEqual(acknowledged!.version, version);
  assert.match(control.metrics(), /pilot_total_xds_rejects\{type="wds"\} 1/);
  assert.match(control.lines.join(''), /a node proxy rejected resources.*I do not like it/);
  control.mesh.change({ addresses: { [uid('a')]: workload('a', { node: 'x' }) } });
  assert.deepEqual((await peer.take()).names, [uid('a')]);
});

test('clients are listed with what they have acknowledged, and counted', async (t) => {
  const control = await startControlPlane(t);
  const peer = await synced(openPeer(t, control));
  control.mesh.change({ addresses: { [uid('a')]: workload('a') } });
  const { version } = await peer.take();
  await eventually('it is acknowledged', () => {
    const [client] = control.ads.clients();
    return client!.types[0]!.acknowledged!.version === version;
  });
  const [client] = control.ads.clients();
  assert.equal(client!.id, 'ztunnel~10.0.0.9~agent-1.mesh~mesh.svc.cluster.local');
  assert.deepEqual([client!.namespace, client!.pod, client!.node], ['mesh', 'agent-1', 'node-a']);
  assert.match(client!.address, /^127\.0\.0\.1:\d+$/);
  assert.deepEqual(
    client!.types.map(({ typeUrl, names, waiting, rejections }) => [typeUrl, names, waiting, rejections]),
    [
      [ADDRESS, null, 0, 0],
      [AUTHORIZATION, null, 0, 0],
    ],
  );
  const metrics = control.metrics();
  assert.match(metrics, /pilot_xds\{version="unknown"\} 1/);
  assert.match(metrics, /pilot_xds_pushes\{type="wds"\} 2/);
  assert.match(metrics, /pilot_proxy_convergence_time_count 1/);
  peer.call.cancel();
  await control.clients(0);
});

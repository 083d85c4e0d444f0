import assert from 'node:assert/strict';
import { test } from 'node:test';
import { skippableTime } from '../support/skipped-time.ts';
import { encode } from '../support/xds-schema.ts';
import { istiod, policy, startClient, uid, workload } from './support/client-under-test.ts';
import { inTurns } from './support/turns.ts';

test('one type alone is not enough', async (t) => {
  const server = await istiod(t);
  server.answers.policies = false;
  server.change({ addresses: { [uid('a')]: workload('a') } });
  const { client, store, until } = startClient(t, server);
  await until('delivered', () => store.workload(uid('a')) !== null);
  assert.equal(client.status().synced, false);
  server.answers.policies = true;
  server.endStreams();
  await client.synced;
});

test('an empty mesh is a mesh', async (t) => {
  const server = await istiod(t);
  const { client } = startClient(t, server);
  await client.synced;
});

test('a workload that cannot be read does not keep the others from being served', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a', { tunnelProtocol: 2 }), [uid('b')]: workload('b') } });
  const { client, store } = startClient(t, server);
  await client.synced;
  assert.notEqual(store.workload(uid('b')), null);
});

test('a policy of which not even the scope is known might deny anything, so nothing is served', async (t) => {
  const server = await istiod(t);
  server.change({ policies: { 'demo/p': policy('p', { scope: 7 }) } });
  const { client, until } = startClient(t, server);
  await until('rejected', () => client.status().types.Authorization!.lastPush?.rejected === 1);
  assert.equal(client.status().synced, false);
  server.push({ policies: { 'demo/p': policy('p') } });
  await client.synced;
});

test('a policy that is attached later cuts nobody off before it is known', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a') }, policies: { 'demo/p': policy('p') } });
  const skip = skippableTime(t);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { client, store } = startClient(t, server, { localNode: 'node-a' });
  await client.synced;
  const unknownPolicies: string[] = [];
  store.subscribe(() => {
    for (const key of store.workload(uid('a'))!.authorizationPolicies) {
      if (store.policy(key) === null) unknownPolicies.push(key);
    }
  });
  server.push({
    addresses: { [uid('a')]: workload('a', { authorizationPolicies: ['demo/p', 'demo/new'] }) },
    policies: { 'demo/new': policy('new', { scope: 'WORKLOAD_SELECTOR' }) },
  });
  await inTurns('attached', () => store.workload(uid('a'))!.authorizationPolicies.length === 2);
  assert.deepEqual(unknownPolicies, []);
  // One that never comes is waited for a moment, then it denies.
  await inTurns('acknowledged', () => server.requests.length === 6);
  server.push({ addresses: { [uid('a')]: workload('a', { authorizationPolicies: ['demo/never'] }) } });
  await inTurns('acknowledged', () => server.requests.length === 7);
  skip(1000);
  t.mock.timers.tick(1000);
  await inTurns('in force', () => store.workload(uid('a'))!.authorizationPolicies[0] === 'demo/never');
});

test('a response that comes in two thousand pieces is applied whole', async (t) => {
  const server = await istiod(t);
  const names = Array.from({ length: 5000 }, (_, index) => `w-${index}`);
  server.change({
    addresses: Object.fromEntries(
      names.map((name) => [uid(name), encode('Address', workload(name, { workloadName: 'x'.repeat(300) }))]),
    ),
  });
  const { client } = startClient(t, server);
  await client.synced;
  assert.equal(client.status().types.Address!.resources, 5000);
});

/** A policy that is attached arrives after the workload that lists it, and one that is not known denies. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createMeshState } from '../../src/state/store.ts';
import { ADDRESS, AUTHORIZATION } from '../support/istiod.ts';
import { skippableTime } from '../support/skipped-time.ts';
import { encode } from '../support/xds-schema.ts';
import { istiod, policy, startClient, uid, workload } from './support/client-under-test.ts';
import { pathTo } from './support/path.ts';
import { intakeOf, takeIn } from './support/taken-in.ts';
import { inTurns } from './support/turns.ts';

function started(t: TestContext, names: readonly string[]) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 0;
  const store = createMeshState({ localNode: '' });
  const intake = intakeOf(store, '', () => now);
  t.after(() => intake.close());
  const push = (typeUrl: string, resources: readonly (readonly [string, Buffer])[]) =>
    takeIn(
      intake,
      encode('DeltaDiscoveryResponse', {
        typeUrl,
        nonce: 'n',
        resources: resources.map(([name, value]) => ({ name, version: '1', resource: { typeUrl, value } })),
      }),
    );
  const put = (list: readonly string[], more: Record<string, unknown>) =>
    push(
      ADDRESS,
      list.map((name) => [uid(name), encode('Address', workload(name, more))]),
    );
  put(names, {});
  push(AUTHORIZATION, []);
  return {
    /** Attaches a policy that is not known. */
    attach: (list: readonly string[], more: Record<string, unknown> = {}) =>
      put(list, { authorizationPolicies: ['demo/late'], ...more }),
    sendPolicy: () => push(AUTHORIZATION, [['demo/late', encode('Authorization', policy('late'))]]),
    async pass(ms: number) {
      now += ms;
      t.mock.timers.tick(ms);
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    },
    attached: () => names.filter((name) => store.workload(uid(name))!.authorizationPolicies.length > 0),
  };
}

test('a policy takes effect with the workload that lists it, once it is there', (t) => {
  const mesh = started(t, ['a', 'b']);
  mesh.attach(['a']);
  assert.deepEqual(mesh.attached(), []);
  mesh.sendPolicy();
  assert.deepEqual(mesh.attached(), ['a']);
});

test('each workload waits a second for itself', async (t) => {
  const mesh = started(t, ['a', 'b']);
  mesh.attach(['a']);
  await mesh.pass(900);
  mesh.attach(['b']);
  await mesh.pass(100);
  assert.deepEqual(mesh.attached(), ['a']);
  await mesh.pass(899);
  assert.deepEqual(mesh.attached(), ['a']);
  await mesh.pass(1);
  assert.deepEqual(mesh.attached(), ['a', 'b']);
});

test('a workload that goes on changing does not wait longer', async (t) => {
  const mesh = started(t, ['a']);
  mesh.attach(['a']);
  for (let change = 0; change < 4; change++) {
    await mesh.pass(240);
    mesh.attach(['a'], { canonicalName: `v${change}` });
    assert.deepEqual(mesh.attached(), []);
  }
  await mesh.pass(40);
  assert.deepEqual(mesh.attached(), ['a']);
});

test('of thousands that wait none is forgotten', async (t) => {
  const names = Array.from({ length: 1000 }, (_, index) => `w${index}`);
  const mesh = started(t, names);
  mesh.attach(names);
  await mesh.pass(999);
  assert.deepEqual(mesh.attached(), []);
  // They are let go some at a time.
  for (let turn = 0; turn < 1000; turn++) await mesh.pass(1);
  assert.deepEqual(mesh.attached(), names);
});

test('a policy that came while this thread stood still is not late', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a') } });
  const path = await pathTo(t, server);
  const skip = skippableTime(t);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { client, store } = startClient(t, { address: path.address, rootPem: server.rootPem });
  await client.synced;
  await inTurns('acknowledged', () => server.requests.length === 4);
  server.push({ addresses: { [uid('a')]: workload('a', { authorizationPolicies: ['demo/p'] }) } });
  await inTurns('acknowledged, and waits', () => server.requests.length === 5);
  // Nothing else is on its way.
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  const unknown: string[] = [];
  const lists = () => store.workload(uid('a'))!.authorizationPolicies;
  store.subscribe(() => unknown.push(...lists().filter((key) => store.policy(key) === null)));
  const passed = path.beforeItIsRead('client', () => {
    skip(1000);
    t.mock.timers.tick(1000);
  });
  server.push({ policies: { 'demo/p': policy('p', { scope: 'WORKLOAD_SELECTOR' }) } });
  await passed;
  await inTurns('attached', () => lists().length === 1);
  assert.deepEqual(unknown, []);
});

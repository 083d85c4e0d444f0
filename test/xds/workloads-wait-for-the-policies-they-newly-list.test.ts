/** A policy that is attached arrives after the workload that lists it, and one that is not known denies. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createMeshState } from '../../src/state/store.ts';
import { ADDRESS, AUTHORIZATION } from '../support/istiod.ts';
import { encode } from '../support/xds-schema.ts';
import { policy, uid, workload } from './support/client-under-test.ts';
import { intakeOf, takeIn } from './support/taken-in.ts';

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
    pass(ms: number) {
      now += ms;
      t.mock.timers.tick(ms);
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

test('each workload waits a second for itself', (t) => {
  const mesh = started(t, ['a', 'b']);
  mesh.attach(['a']);
  mesh.pass(900);
  mesh.attach(['b']);
  mesh.pass(100);
  assert.deepEqual(mesh.attached(), ['a']);
  mesh.pass(899);
  assert.deepEqual(mesh.attached(), ['a']);
  mesh.pass(1);
  assert.deepEqual(mesh.attached(), ['a', 'b']);
});

test('a workload that goes on changing does not wait longer', (t) => {
  const mesh = started(t, ['a']);
  mesh.attach(['a']);
  for (let change = 0; change < 4; change++) {
    mesh.pass(240);
    mesh.attach(['a'], { canonicalName: `v${change}` });
    assert.deepEqual(mesh.attached(), []);
  }
  mesh.pass(40);
  assert.deepEqual(mesh.attached(), ['a']);
});

test('of thousands that wait none is forgotten', (t) => {
  const names = Array.from({ length: 1000 }, (_, index) => `w${index}`);
  const mesh = started(t, names);
  mesh.attach(names);
  mesh.pass(999);
  assert.deepEqual(mesh.attached(), []);
  // They are let go some at a time.
  for (let turn = 0; turn < 1000; turn++) mesh.pass(1);
  assert.deepEqual(mesh.attached(), names);
});

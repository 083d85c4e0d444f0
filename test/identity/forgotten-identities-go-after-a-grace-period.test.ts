import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ATTEMPT_TIMEOUT_MS, CONCURRENT_REQUESTS, FORGET_GRACE_MS } from '../../src/identity/manager.ts';
import { createBench, HOUR, identity, MINUTE } from './manager-under-test.ts';

const A = identity('a');

test('a forgotten certificate is dropped, and listeners are told', async (t) => {
  const { manager, next, clock, sent } = createBench(t);
  const told: [string, boolean][] = [];
  manager.prefetch(A);
  await next().issue();
  manager.watch((name, certificate) => told.push([name, certificate === null]));
  manager.forget(A);
  await clock.advance(FORGET_GRACE_MS - 1);
  assert.equal(manager.list().length, 1);
  await clock.advance(1);
  assert.deepEqual(manager.list(), []);
  assert.deepEqual(told, [[A, true]]);
  await clock.advance(24 * HOUR);
  assert.equal(sent(), 1, 'and nothing renews it');
});

test('an identity that is wanted again in time keeps its certificate', async (t) => {
  for (const want of ['get', 'prefetch'] as const) {
    const { manager, next, clock, sent } = createBench(t);
    manager.prefetch(A);
    const certificate = await next().issue();
    manager.forget(A);
    await clock.advance(FORGET_GRACE_MS - 1);
    await manager[want](A);
    await clock.advance(FORGET_GRACE_MS);
    assert.equal(await manager.get(A), certificate);
    assert.equal(sent(), 1);
  }
});

test('a renewal that came due while the identity was forgotten is made up for', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  manager.prefetch(A);
  const certificate = await next().issue(4 * MINUTE);
  manager.forget(A);
  await clock.advance(3 * MINUTE);
  assert.equal(requests.length, 0);
  assert.equal(await manager.get(A), certificate);
  assert.equal(requests.length, 1);
});

test('an identity that comes back after it was dropped is fetched anew', async (t) => {
  const { manager, next, clock } = createBench(t);
  manager.prefetch(A);
  await next().issue();
  manager.forget(A);
  await clock.advance(FORGET_GRACE_MS);
  const waiting = manager.get(A);
  const certificate = await next().issue();
  assert.equal(await waiting, certificate);
});

test('those who still wait when an identity is dropped are told that it is no longer needed', async (t) => {
  const { manager, clock } = createBench(t);
  // A CA that answers nobody, and more connections before this one than it has time for within the grace period.
  const ahead = CONCURRENT_REQUESTS * (FORGET_GRACE_MS / ATTEMPT_TIMEOUT_MS + 1);
  const others = Array.from({ length: ahead }, (_, i) => manager.get(identity(`stuck${i}`)));
  const told = assert.rejects(manager.get(A), {
    code: 'IDENTITY_FORGOTTEN',
    message: `${A}: the identity is no longer needed`,
  });
  const outcomes = Promise.allSettled(others);
  manager.forget(A);
  await clock.advance(FORGET_GRACE_MS);
  await told;
  assert.ok(manager.list().every((state) => state.identity !== A));
  manager.close();
  await outcomes;
});

test('an answer that comes after the identity was dropped is not kept', async (t) => {
  const { manager, next, clock, sent } = createBench(t);
  manager.prefetch(A);
  manager.forget(A);
  const request = next();
  await clock.advance(FORGET_GRACE_MS);
  await request.issue();
  assert.deepEqual(manager.list(), []);
  assert.equal(sent(), 1);
});

test('forgetting what is not known is nothing', (t) => {
  const { manager } = createBench(t);
  manager.forget(A);
  assert.deepEqual(manager.list(), []);
});

/** Certificates of this agent that a revocation list names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createBench, HOUR, identity } from './manager-under-test.ts';

const WEB = identity('web');

test('a certificate that gets revoked goes at once, said loudly, and another one takes its place', async (t) => {
  const { manager, next, revoked, logged } = createBench(t);
  const told: (string | null)[] = [];
  manager.watch((_, certificate) => told.push(certificate?.serial ?? null));
  const first = manager.get(WEB);
  const { serial } = await next().issue();
  await first;
  const other = manager.get(identity('other'));
  const kept = await next().issue();
  await other;

  revoked.add(serial);
  await manager.reviewRevocations();
  assert.deepEqual(told, [serial, kept.serial, null]);
  assert.deepEqual(logged, [
    `certificate ${serial} of this agent is revoked by a list in CRL_PATH; it is no longer used, and another one is asked for`,
  ]);
  assert.equal(await manager.get(identity('other')), kept);

  const waiting = manager.get(WEB);
  const fresh = await next().issue();
  assert.equal(await waiting, fresh);
  assert.equal(told.at(-1), fresh.serial);
});

test('a new certificate that is revoked already, as under a revoked intermediate, is not used', async (t) => {
  const { manager, next, revoked } = createBench(t);
  const waiting = manager.get(WEB);
  revoked.add('leaf');
  const refused = assert.rejects(waiting, {
    code: 'CERTIFICATE_UNAVAILABLE',
    message: /: certificate leaf of this agent is revoked by a list in CRL_PATH$/,
  });
  await next().issue(undefined, { serial: 'leaf' });
  await refused;
  assert.equal(manager.list()[0]!.state, 'Unavailable');
});

test('a renewal that is under way when its predecessor is revoked is what is used', async (t) => {
  const { manager, next, revoked, clock, sent } = createBench(t);
  const first = manager.get(WEB);
  const { serial } = await next().issue(2 * HOUR);
  await first;
  await clock.advance(HOUR);
  assert.equal(sent(), 2);
  revoked.add(serial);
  await manager.reviewRevocations();
  const waiting = manager.get(WEB);
  const fresh = await next().issue();
  assert.equal(await waiting, fresh);
  assert.equal(sent(), 2);
});

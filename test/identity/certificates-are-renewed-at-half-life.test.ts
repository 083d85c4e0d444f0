import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { WorkloadCertificate } from '../../src/identity/certificate.ts';
import { RENEW_ALL_WITHIN_MS } from '../../src/identity/manager.ts';
import { createRenewalPolicy } from '../../src/identity/renewal.ts';
import { createBench, HOUR, identity, MINUTE, SECOND } from './manager-under-test.ts';

test('a certificate is renewed at half its life, and the new one is used and announced', async (t) => {
  const { manager, next, requests, clock } = createBench(t);
  const announced: [string, string | undefined][] = [];
  manager.watch((name, certificate) => announced.push([name, certificate?.serial]));
  manager.prefetch(identity('a'));
  const first = await next().issue(24 * HOUR);
  await clock.advance(12 * HOUR - 1);
  assert.equal(requests.length, 0);
  await clock.advance(1);
  assert.equal(await manager.get(identity('a')), first, 'the old one is used meanwhile');
  const second = await next().issue(24 * HOUR);
  assert.equal(await manager.get(identity('a')), second);
  assert.deepEqual(announced, [
    [identity('a'), first.serial],
    [identity('a'), second.serial],
  ]);
  await clock.advance(12 * HOUR);
  assert.equal(requests.length, 1, 'and so on');
});

test('when the CA has changed every certificate is renewed soon, and those of before are used meanwhile', async (t) => {
  const { manager, requests, clock } = createBench(t);
  const names = ['a', 'b', 'c'].map(identity);
  for (const name of names) manager.prefetch(name);
  const first = await Promise.all(requests.splice(0).map((request) => request.issue(24 * HOUR)));
  manager.renewAll();
  assert.equal(requests.length, 0);
  assert.equal(await manager.get(names[0]!), first[0]);
  await clock.advance(RENEW_ALL_WITHIN_MS / 2);
  assert.deepEqual(requests.map((request) => request.identity).sort(), names);
  const [second] = await Promise.all(requests.splice(0).map((request) => request.issue(24 * HOUR)));
  assert.equal(await manager.get(second!.identity), second);
});

test('a clock that is set forward beyond the half life has the certificate renewed within a minute', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  manager.prefetch(identity('a'));
  await next().issue(2 * HOUR);
  clock.set(90 * MINUTE);
  await clock.advance(MINUTE);
  assert.equal(requests.length, 1);
});

test('a certificate that was asked for before the CA changed, and comes after that, is renewed soon as well', async (t) => {
  const { manager, next, requests, clock } = createBench(t);
  manager.prefetch(identity('a'));
  const underWay = next();
  manager.renewAll();
  const first = await underWay.issue(24 * HOUR);
  assert.equal(await manager.get(identity('a')), first);
  await clock.advance(RENEW_ALL_WITHIN_MS / 2);
  assert.equal(requests.length, 1);
  await next().issue(24 * HOUR);
  await clock.advance(11 * HOUR);
  assert.equal(requests.length, 0);
});

test('a listener that has gone is told no more', async (t) => {
  const { manager, next } = createBench(t);
  const told: string[] = [];
  const stop = manager.watch((name) => told.push(name));
  manager.prefetch(identity('a'));
  await next().issue();
  stop();
  manager.prefetch(identity('b'));
  await next().issue();
  assert.deepEqual(told, [identity('a')]);
});

test('a certificate that is dated back by more than it lasts does not lead to endless renewals', async (t) => {
  const { manager, next, clock, sent } = createBench(t);
  manager.prefetch(identity('a'));
  await next().issue(MINUTE, { notBefore: clock.now() - 2 * MINUTE });
  await clock.advance(29 * SECOND);
  assert.equal(sent(), 1);
  await clock.advance(SECOND);
  assert.equal(sent(), 2);
});

test('a life longer than a timer can wait is not renewed early', async (t) => {
  const { manager, next, clock, sent } = createBench(t);
  // A timer waits for 24.8 days at most.
  const half = 25 * 24 * HOUR;
  manager.prefetch(identity('a'));
  await next().issue(2 * half);
  assert.ok(Math.max(...clock.delays()) <= 2 ** 31 - 1);
  await clock.advance(half - 1);
  assert.equal(sent(), 1);
  await clock.advance(1);
  assert.equal(sent(), 2);
});

test('renewals spread around half life, and back-off around its step, within their bounds', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      fc.integer({ min: 1, max: 40 }),
      (random, failures) => {
        const policy = createRenewalPolicy(() => random);
        const renewAt = policy.renewAt({ notBefore: 0, notAfter: 100 * HOUR }, 0);
        assert.ok(renewAt >= 45 * HOUR && renewAt <= 55 * HOUR);
        const step = 1000 * 2 ** (failures - 1);
        const wait = policy.backOff(failures);
        assert.ok(wait >= Math.min(step * 0.8, 150_000) && wait <= Math.min(step * 1.2, 150_000));
      },
    ),
  );
});

const unusable: [what: string, changes: (now: number) => Partial<WorkloadCertificate>, message: RegExp][] = [
  ['for somebody else', () => ({ identity: identity('b') }), /the certificate is for spiffe:.*\/sa\/b$/],
  ['not valid yet', (now) => ({ notBefore: now + MINUTE }), /not valid before 2030-.*; this node's clock says 2030-/],
  ['expired', (now) => ({ notBefore: now - HOUR, notAfter: now - 1 }), /expired at 20.*; this node's clock says 2030-/],
];

for (const [what, changes, message] of unusable) {
  test(`a certificate ${what} is a failed attempt`, async (t) => {
    const { manager, next, clock } = createBench(t);
    const waiting = manager.get(identity('a'));
    await Promise.all([
      assert.rejects(waiting, { code: 'CERTIFICATE_UNAVAILABLE', message }),
      next().issue(HOUR, changes(clock.now())),
    ]);
    assert.equal(manager.list()[0]!.state, 'Unavailable');
  });
}

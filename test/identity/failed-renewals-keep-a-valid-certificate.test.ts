import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createBench, HOUR, identity, MINUTE, SECOND } from './manager-under-test.ts';

const A = identity('a');

test('a failed renewal leaves the certificate in use and says until when, and when it is tried again', async (t) => {
  const { manager, next, clock, logged } = createBench(t);
  manager.prefetch(A);
  const certificate = await next().issue(2 * HOUR);
  await clock.advance(HOUR);
  await next().fail('connection refused');
  assert.equal(await manager.get(A), certificate);
  assert.equal(manager.list()[0]!.state, 'Available');
  assert.deepEqual(logged, [
    'certificate renewal failed (connection refused); retaining existing valid certificate until 2030-01-01T02:00:00.000Z; next retry at 2030-01-01T01:00:01.000Z',
  ]);
});

test('attempts are 1, 2, 4 … s apart, at most 150 s, and start again at 1 s after a success', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  manager.prefetch(A);
  for (const wait of [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]) {
    await next().fail('down');
    await clock.advance(wait * SECOND - 1);
    assert.equal(requests.length, 0, `before ${wait} s`);
    await clock.advance(1);
    assert.equal(requests.length, 1, `after ${wait} s`);
  }
  await next().issue(2 * HOUR);
  await clock.advance(HOUR);
  await next().fail('down');
  await clock.advance(SECOND);
  assert.equal(requests.length, 1);
});

test('a clock that is set back puts off no attempt', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  manager.prefetch(A);
  await next().fail('down');
  clock.set(-HOUR);
  await clock.advance(2 * SECOND);
  assert.equal(requests.length, 1);
  await next().fail('down');
  clock.set(-HOUR);
  const waiting = manager.get(A);
  await clock.advance(2 * SECOND);
  await next().issue();
  assert.equal((await waiting).identity, A);
});

test('the last attempt before expiry is not put off beyond it', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  manager.prefetch(A);
  await next().issue(10 * SECOND);
  await clock.advance(5 * SECOND);
  await next().fail('down');
  await clock.advance(SECOND);
  await next().fail('down');
  await clock.advance(2 * SECOND);
  await next().fail('down'); // 8 s after issue; the back-off would be 4 s
  await clock.advance(2 * SECOND);
  assert.equal(requests.length, 1);
});

test('once it has expired, requests fail with the reason and lead to an attempt each second', async (t) => {
  const { manager, next, clock, requests, sent } = createBench(t);
  manager.prefetch(A);
  await next().issue(MINUTE);
  while (requests.length > 0 || clock.now() < Date.UTC(2030, 0) + 61 * SECOND) {
    if (requests.length > 0) await next().fail('down');
    else await clock.advance(SECOND);
  }
  const [state] = manager.list();
  assert.ok(state?.state === 'Unavailable');
  assert.equal(state.error, 'down');

  const before = sent();
  const connections = Array.from({ length: 50 }, () => manager.get(A));
  await clock.advance(SECOND);
  assert.equal(sent() - before, 1, 'fifty connections are one attempt');
  const reasons = Promise.allSettled(connections);
  await next().fail('still down');
  for (const outcome of await reasons) {
    assert.ok(outcome.status === 'rejected');
    assert.equal(outcome.reason.message, `no certificate for ${A} from test CA: still down`);
  }

  const tooSoon = manager.get(A);
  await clock.advance(SECOND - 1);
  assert.equal(requests.length, 0, 'not twice within a second');
  await clock.advance(1);
  const certificate = await next().issue();
  assert.equal(await tooSoon, certificate, 'and the connection that waited has its certificate');
});

test('a certificate that expires without a new one is taken back once', async (t) => {
  const { manager, next, clock } = createBench(t);
  const told: (string | null)[] = [];
  manager.watch((identity, certificate) => told.push(certificate === null ? `${identity} none` : certificate.serial));
  manager.prefetch(A);
  const { serial } = await next().issue(10 * SECOND);
  await clock.advance(5 * SECOND);
  await next().fail('down');
  await clock.advance(SECOND);
  await next().fail('down');
  await clock.advance(2 * SECOND);
  await next().fail('down');
  assert.deepEqual(told, [serial], 'kept while it is valid');
  await clock.advance(2 * SECOND);
  await next().fail('down');
  await clock.advance(8 * SECOND);
  await next().fail('down');
  assert.deepEqual(told, [serial, `${A} none`]);
  const connection = manager.get(A);
  await clock.advance(SECOND);
  const renewed = await next().issue();
  assert.equal(await connection, renewed);
  assert.deepEqual(told, [serial, `${A} none`, renewed.serial]);
});

test('a CA that is back is used by the next connection, however long the back-off has become', async (t) => {
  const { manager, next, clock } = createBench(t);
  manager.prefetch(A);
  for (const wait of [1, 2, 4, 8, 16, 32, 64, 128]) {
    await next().fail('down');
    await clock.advance(wait * SECOND);
  }
  await next().fail('down');
  await clock.advance(2 * SECOND);
  const connection = manager.get(A);
  const certificate = await next().issue();
  assert.equal(await connection, certificate);
});

test('a prefetch does not shorten the back-off', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  manager.prefetch(A);
  await next().fail('down');
  await clock.advance(SECOND);
  await next().fail('down');
  manager.prefetch(A);
  await clock.advance(SECOND);
  assert.equal(requests.length, 0);
  await clock.advance(SECOND);
  assert.equal(requests.length, 1);
});

test('a CA that never answers fails the attempt after 10 s and frees its place', async (t) => {
  const { manager, next, clock, requests } = createBench(t);
  for (let i = 0; i < 8; i++) manager.prefetch(identity(`stuck${i}`));
  const stuck = requests.splice(0);
  const connection = manager.get(A);
  const failed = assert.rejects(manager.get(identity('stuck0')), { message: /from test CA: no answer within 10 s$/ });
  await clock.advance(10 * SECOND);
  await failed;
  const certificate = await next().issue();
  assert.equal(await connection, certificate);
  await stuck[0]!.issue();
  const late = manager.list().find((state) => state.identity === identity('stuck0'));
  assert.equal(late?.state, 'Unavailable', 'an answer after that is not used');
});

test('a CA client that throws at once is a failed attempt like any other', async (t) => {
  const { createCertificateManager } = await import('../../src/identity/manager.ts');
  const manager = createCertificateManager({
    authority: {
      name: 'broken CA',
      close() {},
      sign() {
        throw new Error('no route');
      },
    },
    log: { error() {}, warn() {}, debug() {} },
  });
  t.after(() => manager.close());
  await assert.rejects(manager.get(A), { code: 'CERTIFICATE_UNAVAILABLE', message: /from broken CA: no route$/ });
});

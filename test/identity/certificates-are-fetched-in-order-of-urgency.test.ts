import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createBench, HOUR, identity } from './manager-under-test.ts';

const names = (n: number, prefix: string) => Array.from({ length: n }, (_, i) => identity(`${prefix}${i}`));

test('the first request waits for the certificate, the next gets it at once', async (t) => {
  const { manager, next, sent } = createBench(t);
  const waiting = manager.get(identity('a'));
  const certificate = await next().issue();
  assert.equal(await waiting, certificate);
  assert.equal(await manager.get(identity('a')), certificate);
  assert.equal(sent(), 1);
});

test('requests for one identity while it is fetched share one attempt', async (t) => {
  const { manager, next, sent } = createBench(t);
  manager.prefetch(identity('a'));
  const waiting = [manager.get(identity('a')), manager.get(identity('a'))];
  manager.prefetch(identity('a'));
  const certificate = await next().issue();
  assert.deepEqual(await Promise.all(waiting), [certificate, certificate]);
  assert.equal(sent(), 1);
});

test('at most eight requests are under way at once', async (t) => {
  const { manager, requests, next } = createBench(t);
  for (const name of names(20, 'p')) manager.prefetch(name);
  await manager.list();
  assert.equal(requests.length, 8);
  await next().issue();
  await next().fail('no');
  assert.equal(requests.length, 8);
});

test('waiting connections come before prefetched pods, and those in the order they came', async (t) => {
  const { manager, requests, next, clock } = createBench(t);
  const busy = names(8, 'busy');
  for (const name of busy) manager.prefetch(name);
  for (const name of names(3, 'warm')) {
    manager.prefetch(name);
    await clock.advance(1);
  }
  const connection = manager.get(identity('now'));
  for (const _ of busy) await next().issue();
  assert.deepEqual(
    requests.map((request) => request.identity),
    [identity('now'), identity('warm0'), identity('warm1'), identity('warm2')],
  );
  await next().issue();
  await connection;
});

test('a connection moves the prefetch of its identity forward, and a prefetch moves nothing back', async (t) => {
  const { manager, requests, next } = createBench(t);
  const busy = names(8, 'busy');
  for (const name of busy) manager.prefetch(name);
  for (const name of ['first', 'second', 'third']) manager.prefetch(identity(name));
  const connection = manager.get(identity('third'));
  manager.prefetch(identity('third'));
  for (const _ of busy) await next().issue();
  assert.equal(requests[0]!.identity, identity('third'));
  await next().issue();
  await connection;
});

test('a renewal waits behind connections and prefetched pods', async (t) => {
  const { manager, requests, next, clock } = createBench(t);
  manager.prefetch(identity('old'));
  await next().issue(2 * HOUR);
  await clock.advance(HOUR - 5000);
  const busy = names(8, 'busy');
  for (const name of busy) manager.prefetch(name);
  manager.prefetch(identity('warm'));
  await clock.advance(6000);
  for (const _ of busy) await next().issue();
  assert.deepEqual(
    requests.map((request) => request.identity),
    [identity('warm'), identity('old')],
  );
});

test('what is not an identity is refused without asking the CA', async (t) => {
  const { manager, sent } = createBench(t);
  await assert.rejects(manager.get('spiffe://cluster.local/a'), { code: 'IDENTITY_INVALID' });
  assert.throws(() => manager.prefetch(''), { code: 'IDENTITY_INVALID' });
  assert.equal(sent(), 0);
  assert.deepEqual(manager.list(), []);
});

test('closing rejects those who wait, and later requests', async (t) => {
  const { manager, clock } = createBench(t);
  const waiting = manager.get(identity('a'));
  manager.close();
  await assert.rejects(waiting, { code: 'CERTIFICATES_CLOSED' });
  await assert.rejects(manager.get(identity('b')), { code: 'CERTIFICATES_CLOSED' });
  await clock.advance(HOUR);
});

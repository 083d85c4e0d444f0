import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createReadiness, serveReadiness } from '../../src/admin/readiness.ts';
import { ask, memoryLog } from './client.ts';

async function start(context: TestContext) {
  const readiness = createReadiness();
  const service = await serveReadiness({ readiness, addresses: [{ ip: '::', port: 0 }], log: memoryLog().log });
  context.after(() => service.close(0));
  return { readiness, port: service.addresses[0]!.port };
}

test('ready once every task is done, and not ready again when one comes back', async (context) => {
  const { readiness, port } = await start(context);
  const probe = async () => {
    const { status, text, headers } = await ask(port, '/healthz/ready');
    assert.match(headers['content-type']!, /^text\/plain/);
    return `${status} ${text}`;
  };
  const proxyDone = readiness.wait('proxy');
  const stateDone = readiness.wait('state manager');
  assert.equal(await probe(), '500 not ready, pending: proxy, state manager\n');
  proxyDone();
  assert.equal(await probe(), '500 not ready, pending: state manager\n');
  stateDone();
  assert.equal(await probe(), '200 ready\n');
  const podsDone = readiness.wait('workload proxy manager');
  assert.equal(await probe(), '500 not ready, pending: workload proxy manager\n');
  podsDone();
  podsDone();
  assert.equal(await probe(), '200 ready\n');
});

test('two who wait for the same task are two', () => {
  const readiness = createReadiness();
  const first = readiness.wait('proxy');
  const second = readiness.wait('proxy');
  assert.deepEqual(readiness.pending(), ['proxy']);
  first();
  first();
  assert.deepEqual(readiness.pending(), ['proxy']);
  second();
  assert.deepEqual(readiness.pending(), []);
});

for (const [method, path, status] of [
  ['POST', '/healthz/ready', 405],
  ['HEAD', '/healthz/ready', 405],
  ['GET', '/healthz', 404],
  ['GET', '/', 404],
  ['GET', '/healthz/ready?probe=1', 200],
] as const) {
  test(`${method} ${path} is answered ${status}`, async (context) => {
    const { port } = await start(context);
    const answer = await ask(port, path, { method });
    assert.equal(answer.status, status);
    if (status !== 200) assert.equal(answer.text, '');
  });
}

test('answers over IPv4 and IPv6', async (context) => {
  const { port } = await start(context);
  for (const ip of ['127.0.0.1', '::1']) assert.equal((await ask(port, '/healthz/ready', { ip })).status, 200);
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readAccessLine } from '../support/access-log.ts';
import { identityOf, meshNetwork, podInfo, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho } from '../support/pod-sockets.ts';

test('agents of two nodes with one CA folder carry traffic between their pods', async (t) => {
  const network = await meshNetwork(t);
  const near = await network.addPod('near');
  const far = await network.addPod('far');
  const services = { 'demo/far.demo.svc.cluster.local': { 80: 8080 } };
  const mesh = {
    workloads: [workload(near), workload(far, { node: 'node-b', services })],
    services: [service('far', '10.96.0.10', { 80: 8080 })],
  };
  const [a, b] = await Promise.all([
    startAgent({ network, name: 'a', mesh }),
    startAgent({ network, name: 'b', mesh, env: { NODE_NAME: 'node-b', LOG_FORMAT: 'json' } }),
  ]);
  await Promise.all([a.enrol(near), b.enrol(far)]);
  await listenEcho(far, 8080);

  await t.test('one agent logs the outbound side, the other the inbound side, each in its format', async () => {
    assert.equal(await exchange(dial(near, '10.96.0.10', 80), 'over there'), 'over there');
    const outbound = await a.access(() => true);
    const inbound = await b.access(() => true);
    assert.equal(outbound.field('direction'), 'outbound');
    assert.equal(inbound.field('direction'), 'inbound');
    assert.equal(inbound.field('src.identity'), identityOf(near));
    assert.equal(outbound.field('dst.identity'), identityOf(far));
    const golden = readFileSync(new URL('../log/golden/access-log-json.txt', import.meta.url), 'utf8').split('\n')[1]!;
    assert.deepEqual(Object.keys(JSON.parse(inbound.text)), Object.keys(JSON.parse(golden)));
    assert.deepEqual(inbound.shape, readAccessLine(golden)!.shape);
    assert.equal(inbound.field('bytes_sent'), '10');
  });

  await t.test('every line of a JSON log is an object with level, time, scope and message in front', () => {
    for (const line of b.output().trimEnd().split('\n')) {
      assert.deepEqual(Object.keys(JSON.parse(line)).slice(0, 4), ['level', 'time', 'scope', 'message'], line);
    }
  });

  await t.test('an agent of another CA is not trusted, and both sides say so', async (t) => {
    const foreign = await network.addPod('foreign');
    const c = await startAgent({
      network,
      name: 'c',
      mesh: { workloads: [workload(foreign, { node: 'node-c' }), workload(far, { node: 'node-b', services })] },
      caDir: join(network.folder, 'other-ca'),
      env: { NODE_NAME: 'node-c' },
    });
    await c.enrol(foreign, podInfo('foreign'));
    const before = b.here();
    assert.equal(await fate(dial(foreign, far.ipv4, 8080)), 'ECONNRESET');
    const client = await c.access(() => true);
    assert.equal(client.level, 'error');
    assert.equal(client.message, 'connection complete');
    assert.match(client.field('error'), /tls/i);
    const server = await b.access(() => true, before);
    assert.equal(server.level, 'warn');
    assert.equal(server.message, 'connection failed');
    assert.match(server.field('error'), /^tls handshake error: /);
    t.diagnostic(client.field('error'));
    t.diagnostic(server.field('error'));
    // The neighbour is not affected.
    assert.equal(await exchange(dial(near, far.ipv4, 8080), 'still'), 'still');
  });
});

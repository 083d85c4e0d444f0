import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen } from '../support/pod-sockets.ts';
import { matching, total } from '../support/samples.ts';

test('connections to a service spread over its endpoints and are counted under its name', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const endpoints = [await network.addPod('echo-1'), await network.addPod('echo-2')];
  const services = {
    'demo/echo.demo.svc.cluster.local': { 80: 8080 },
    'demo/single.demo.svc.cluster.local': { 80: 8080 },
  };
  const agent = await startAgent({
    network,
    mesh: {
      workloads: [
        workload(client, { services: { 'demo/own.demo.svc.cluster.local': { 80: 8080 } } }),
        workload(endpoints[0]!, { services, locality: { region: 'r1', zone: 'z1' } }),
        workload(endpoints[1]!, { services: { 'demo/echo.demo.svc.cluster.local': { 80: 8081 } } }),
      ],
      services: [
        { ...service('echo', '10.96.0.10', { 80: 8080 }), vips: ['/10.96.0.10', '/fd00:96::10'] },
        service('single', '10.96.0.11', { 80: 8080 }),
        service('nobody', '10.96.0.12', { 80: 8080 }),
        service('own', '10.96.0.13', { 80: 8080 }),
      ],
    },
  });
  for (const pod of [client, ...endpoints]) await agent.enrol(pod);
  // The second endpoint serves the same service port on another port of its own.
  const ports = [8080, 8081];
  for (const [index, pod] of endpoints.entries()) {
    await listen(pod, ports[index]!, { serve: ({ socket }) => socket.end(pod.name) });
  }

  await t.test('each connection reaches one endpoint, and all endpoints are reached', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => exchange(dial(client, '10.96.0.10', 80), '')));
    assert.deepEqual([...new Set(answers)].sort(), ['echo-1', 'echo-2']);
  });

  await t.test('both sides name the service', async () => {
    for (const direction of ['outbound', 'inbound']) {
      const line = await agent.access((entry) => entry.field('direction') === direction);
      assert.equal(line.field('dst.service'), 'echo.demo.svc.cluster.local', line.text);
    }
    const samples = await agent.metrics();
    for (const reporter of ['source', 'destination']) {
      const wanted = { reporter, destination_service: 'echo.demo.svc.cluster.local' };
      assert.equal(total(samples, 'istio_tcp_connections_opened_total', wanted), 50);
      const workloads = matching(samples, 'istio_tcp_connections_opened_total', wanted).map(({ labels }) =>
        Object.fromEntries(labels),
      );
      assert.deepEqual(workloads.map((labels) => [labels.destination_workload, labels.destination_region]).sort(), [
        ['echo-1', 'r1'],
        ['echo-2', 'unknown'],
      ]);
    }
  });

  await t.test('the server learns which of its services was meant', async () => {
    await exchange(dial(client, '10.96.0.11', 80), '');
    const line = await agent.access(
      ({ field }) => field('direction') === 'inbound' && field('dst.service').startsWith('single'),
    );
    assert.equal(line.field('dst.hbone_addr'), `${endpoints[0]!.ipv4}:8080`);
  });

  await t.test('a pod that is an endpoint of the service it calls is reached from its own address', async () => {
    await listen(client, 8080, { serve: ({ socket, peer }) => socket.end(`client, called by ${peer.ip}`) });
    const answers = await Promise.all(Array.from({ length: 10 }, () => exchange(dial(client, '10.96.0.13', 80), '')));
    assert.deepEqual(answers, Array(10).fill(`client, called by ${client.ipv4}`));
  });

  await t.test('an IPv6 address of the service leads to IPv6 addresses of its endpoints', async () => {
    if (client.ipv6 === null) return;
    await exchange(dial(client, 'fd00:96::10', 80), '');
    const line = await agent.access(
      ({ field }) => field('direction') === 'outbound' && field('dst.addr').startsWith('['),
    );
    assert.ok(
      endpoints.some(({ ipv6 }) => line.field('dst.addr') === `[${ipv6}]:15008`),
      line.text,
    );
  });

  await t.test('a service without endpoints, or without the port, resets the client and says why', async () => {
    for (const [address, port] of [
      ['10.96.0.12', 80],
      ['10.96.0.10', 81],
    ] as const) {
      assert.equal(await fate(dial(client, address, port)), 'ECONNRESET');
      const line = await agent.access(({ field }) => field('dst.addr') === `${address}:${port}`);
      assert.equal(line.level, 'warn');
      assert.equal(line.message, 'connection failed');
      assert.equal(line.field('error'), `no healthy upstream: ${address}:${port}`);
      assert.deepEqual(line.names, ['src.addr', 'dst.addr', 'direction', 'error']);
    }
    const samples = await agent.metrics();
    assert.equal(
      total(samples, 'culvert_early_denies_total', { reporter: 'source', reason: 'no-healthy-upstream' }),
      2,
    );
  });
});

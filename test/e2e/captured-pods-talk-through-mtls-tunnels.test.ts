import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type CapturedStream, captureLink } from '../../src/demo/link-capture.ts';
import { viewAsTls } from '../../src/demo/tls-stream.ts';
import { type AccessLine, readAccessLine } from '../support/access-log.ts';
import { identityOf, meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listen, listenEcho } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';
import { matching, readSamples, type Sample, total } from '../support/samples.ts';

const golden = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');

test('two captured pods of one node talk through a tunnel of mutual TLS', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const services = { 'demo/server.demo.svc.cluster.local': { 80: 8080 } };
  const mesh = {
    workloads: [workload(client), workload(server, { services })],
    services: [service('server', '10.96.0.10', { 80: 8080 })],
  };
  const agent = await startAgent({ network, mesh });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);

  await t.test('both sides log it as the incumbent does', async () => {
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), 'hello world'), 'hello world');
    const outbound = await agent.access((line) => line.field('direction') === 'outbound');
    const inbound = await agent.access((line) => line.field('direction') === 'inbound');
    const [expectedOutbound, expectedInbound] = golden('log/golden/access-log.txt').split('\n').map(parsed);
    assert.deepEqual(outbound.shape, expectedOutbound!.shape);
    assert.deepEqual(inbound.shape, expectedInbound!.shape);
    for (const line of [outbound, inbound]) {
      assert.equal(line.level, 'info');
      assert.equal(line.message, 'connection complete');
      assert.match(line.field('src.addr'), new RegExp(`^${client.ipv4}:\\d+$`));
      assert.match(line.field('duration'), /^\d+ms$/);
      const { text } = line;
      assert.deepEqual(
        Object.fromEntries(line.names.map((name) => [name, line.field(name)])),
        {
          'src.addr': line.field('src.addr'),
          'src.workload': 'client',
          'src.namespace': 'demo',
          'src.identity': identityOf(client),
          'src.cluster': 'Kubernetes',
          'dst.addr': `${server.ipv4}:15008`,
          'dst.hbone_addr': `${server.ipv4}:8080`,
          'dst.service': 'server.demo.svc.cluster.local',
          'dst.workload': 'server',
          'dst.namespace': 'demo',
          'dst.identity': identityOf(server),
          'dst.cluster': 'Kubernetes',
          direction: line === outbound ? 'outbound' : 'inbound',
          bytes_sent: '11',
          bytes_recv: '11',
          duration: line.field('duration'),
        },
        text,
      );
    }
  });

  await t.test('both reporters count it under the incumbent’s labels', async () => {
    const samples = await agent.metrics();
    const expected = readSamples(golden('metrics/golden/metrics.txt'));
    for (const reporter of ['source', 'destination']) {
      const of = (name: string, where = samples) => matching(where, name, { reporter })[0]!;
      for (const name of ['opened', 'closed'].map((what) => `istio_tcp_connections_${what}_total`)) {
        assert.equal(of(name).value, 1, `${reporter} ${name}`);
        assert.deepEqual(
          of(name).labels.map(([label]) => label),
          of(name, expected).labels.map(([label]) => label),
        );
      }
      assert.equal(total(samples, 'istio_tcp_received_bytes_total', { reporter }), 11);
      assert.equal(total(samples, 'istio_tcp_sent_bytes_total', { reporter }), 11);
      assert.equal(total(samples, 'istio_tcp_connections_failed_total', { reporter }), 0);
      assert.deepEqual(Object.fromEntries(of('istio_tcp_connections_opened_total').labels), {
        reporter,
        source_workload: 'client',
        source_canonical_service: 'client',
        source_canonical_revision: 'latest',
        source_workload_namespace: 'demo',
        source_principal: identityOf(client),
        source_app: 'client',
        source_version: 'latest',
        source_cluster: 'Kubernetes',
        destination_service: 'server.demo.svc.cluster.local',
        destination_service_namespace: 'demo',
        destination_service_name: 'server',
        destination_workload: 'server',
        destination_canonical_service: 'server',
        destination_canonical_revision: 'latest',
        destination_workload_namespace: 'demo',
        destination_principal: identityOf(server),
        destination_app: 'server',
        destination_version: 'latest',
        destination_cluster: 'Kubernetes',
        request_protocol: 'tcp',
        response_flags: '-',
        connection_security_policy: 'mutual_tls',
        source_region: 'unknown',
        source_zone: 'unknown',
        destination_region: 'unknown',
        destination_zone: 'unknown',
      });
    }
  });

  await t.test('the server sees the client’s own address, over IPv4 and IPv6', async () => {
    await listen(server, 8081, { serve: ({ socket, peer }) => socket.end(peer.ip) });
    assert.equal(await exchange(dial(client, server.ipv4, 8081), ''), client.ipv4);
    if (server.ipv6 === null) return;
    assert.equal(await exchange(dial(client, server.ipv6, 8081), ''), client.ipv6);
    const authority = `[${server.ipv6}]:8081`;
    const line = await agent.access(
      ({ field }) => field('dst.hbone_addr') === authority && field('direction') === 'inbound',
    );
    assert.equal(line.field('dst.addr'), `[${server.ipv6}]:15008`);
    assert.match(line.field('src.addr'), new RegExp(`^\\[${client.ipv6}\\]:\\d+$`));
  });

  await t.test('an open connection is in the config dump of both pods', async () => {
    await agent.atRest();
    const connection = dial(client, '10.96.0.10', 80);
    connection.send('x');
    await connection.read(1);
    const { workloadState } = await agent.dump();
    const { connections: outbound, info, state } = workloadState['uid-client']!;
    assert.deepEqual(
      { info, state },
      { info: { name: 'client', namespace: 'demo', serviceAccount: 'client' }, state: 'Up' },
    );
    assert.deepEqual(outbound!.inbound, []);
    assert.deepEqual(
      outbound!.outbound.map(({ id: _, src, ...rest }) => ({ src: src.replace(/:\d+$/, ''), ...rest })),
      [{ src: client.ipv4, originalDst: '10.96.0.10:80', actualDst: `${server.ipv4}:15008`, protocol: 'HBONE' }],
    );
    const { connections: inbound } = workloadState['uid-server']!;
    assert.deepEqual(inbound!.outbound, []);
    assert.deepEqual(
      inbound!.inbound.map(({ id: _, src, ...rest }) => ({ src: src.replace(/:\d+$/, ''), ...rest })),
      [
        {
          src: client.ipv4,
          originalDst: 'server.demo.svc.cluster.local',
          actualDst: `${server.ipv4}:8080`,
          protocol: 'HBONE',
        },
      ],
    );
    // Who dials the pod itself claims no service.
    const direct = dial(client, server.ipv4, 8080);
    direct.send('x');
    await direct.read(1);
    const both = (await agent.dump()).workloadState['uid-server']!.connections!.inbound;
    assert.deepEqual(both.map(({ originalDst }) => originalDst).sort(), [null, 'server.demo.svc.cluster.local'].sort());
    for (const { socket } of [connection, direct]) socket.destroy();
    await agent.atRest();
  });

  await t.test('on the link between the pods there is nothing but TLS to port 15008', async () => {
    const marker = 'a text that nobody on the way may read';
    const capture = captureLink(network.node.fd, server.link);
    network.defer(() => capture.close());
    const seen = () => capture.streams().filter(({ bytes }) => bytes.length > 0);
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), marker), marker);
    // A tunnel that is new to the capture, so that it is seen from its first byte on.
    const fresh = await network.addPod('fresh');
    await agent.apply({ ...mesh, workloads: [...mesh.workloads, workload(fresh)] });
    await agent.enrol(fresh);
    assert.equal(await exchange(dial(fresh, '10.96.0.10', 80), marker), marker);
    const isOf = (pod: Pod) => (stream: CapturedStream) => [stream.sender.ip, stream.receiver.ip].includes(pod.ipv4);
    const between = await agent.until(
      'seen on the link',
      async () => seen(),
      (streams) => [client, fresh].every((pod) => streams.filter(isOf(pod)).length >= 2),
    );
    for (const { sender, receiver, bytes } of between) {
      assert.ok([sender.port, receiver.port].includes(15008), `${sender.port} → ${receiver.port}`);
      assert.ok(!bytes.includes(marker));
    }
    for (const { bytes } of between.filter(isOf(fresh))) assert.equal(viewAsTls(bytes).kind, 'tls');
    // The same reader sees it where there is no tunnel.
    const plain = await network.addPod('plain');
    assert.equal(await exchange(dial(plain, server.ipv4, 8080), marker), marker);
    await agent.until(
      'seen in the clear',
      async () => seen().some(({ bytes }) => bytes.includes(marker)),
      (found) => found,
    );
  });

  await t.test('connections share tunnels', async () => {
    const before = await agent.metrics();
    await Promise.all(Array.from({ length: 40 }, () => exchange(dial(client, server.ipv4, 8080), 'again')));
    const after = await agent.metrics();
    const handshakes = (samples: Sample[]) => total(samples, 'culvert_tunnel_handshakes_total', { role: 'client' });
    // At most one more per thread, and both threads had one after what came before.
    assert.ok(handshakes(after) - handshakes(before) <= 2, `${handshakes(after) - handshakes(before)} more tunnels`);
    assert.ok(total(after, 'culvert_tunnels_open', { role: 'client' }) <= 4);
  });
});

function parsed(text: string): AccessLine {
  return readAccessLine(text)!;
}

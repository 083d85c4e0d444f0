import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { credentials, openTunnel, request } from '../support/hbone-client.ts';
import { listenHbone } from '../support/hbone-server.ts';
import { identityOf, meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listen, patiently } from '../support/pod-sockets.ts';

test('tunnels lead where their authority says: addresses, names, applications behind a PROXY header, waypoints', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const proxied = await network.addPod('proxied');
  const waypoint = await network.addPod('waypoint');
  const outside = await network.addPod('outside');
  const toServer = { 'demo/named.demo.svc.cluster.local': { 80: 8080 } };
  const agent = await startAgent({
    network,
    mesh: {
      workloads: [
        workload(client),
        workload(server, { services: toServer }),
        workload(proxied, { applicationTunnel: { protocol: 'PROXY', port: 15088 } }),
        workload(waypoint),
      ],
      services: [
        service('named', '10.96.0.10', { 80: 8080 }),
        {
          ...service('guarded', '10.96.0.11', { 80: 8080 }),
          waypoint: { destination: `/${waypoint.ipv4}`, hboneMtlsPort: 15008 },
        },
      ],
    },
  });
  for (const pod of [client, server, proxied]) await agent.enrol(pod);
  await listen(server, 8080, { serve: ({ socket, peer }) => socket.end(`port 8080 for ${peer.ip}`) });
  const shown = await credentials(agent.caDir, identityOf(client));

  const authorities = [
    { name: 'an IPv4 address', authority: `${server.ipv4}:8080`, to: server.ipv4 },
    { name: 'a name, with the service’s port', authority: 'named.demo.svc.cluster.local:80', to: server.ipv4 },
    ...(server.ipv6 === null ? [] : [{ name: 'an IPv6 address', authority: `[${server.ipv6}]:8080`, to: server.ipv6 }]),
  ];
  for (const { name, authority, to } of authorities) {
    await t.test(name, async () => {
      const session = await openTunnel(outside, to, shown);
      const { status, headers, stream } = await request(session, authority);
      assert.equal(status, 200);
      assert.match(
        String(headers.baggage),
        /^k8s\.cluster\.name=Kubernetes,k8s\.namespace\.name=demo,k8s\.pod\.name=server/,
      );
      stream.setEncoding('utf8');
      const [text] = await patiently('no data', once(stream, 'data'));
      assert.equal(text, `port 8080 for ${to === server.ipv4 ? outside.ipv4 : outside.ipv6}`);
      session.destroy();
    });
  }

  await t.test('an application tunnel gets a PROXY header with the client’s address and identity first', async () => {
    const application = await listen(proxied, 15088, { ip: '127.0.0.1' });
    const session = await openTunnel(outside, proxied.ipv4, shown);
    const { status, stream } = await request(session, '10.96.0.10:80');
    assert.equal(status, 200);
    stream.end('hello');
    const bytes = await (await application.accept()).rest();
    // Version 2 of the protocol, command PROXY, TCP over IPv4, length.
    assert.equal(bytes.subarray(0, 14).toString('hex'), `0d0a0d0a000d0a515549540a2111`);
    const length = bytes.readUInt16BE(14);
    assert.deepEqual([...bytes.subarray(16, 24)], [...octets(outside.ipv4), ...octets('10.96.0.10')]);
    assert.equal(bytes.readUInt16BE(26), 80);
    const tlv = bytes.subarray(28, 16 + length);
    assert.equal(tlv[0], 0xd0);
    assert.equal(tlv.subarray(3).toString(), identityOf(client));
    assert.equal(bytes.subarray(16 + length).toString(), 'hello');
    session.destroy();
  });

  await t.test('a service with a waypoint is reached through it, under its own address', async () => {
    const own = await credentials(agent.caDir, identityOf(waypoint));
    let authority = '';
    await listenHbone(waypoint, () => ({
      credentials: own,
      request(stream, headers) {
        authority = headers[headers.indexOf(':authority') + 1] ?? '';
        stream.respond({ ':status': 200 });
        stream.pipe(stream);
      },
    }));
    assert.equal(await exchange(dial(client, '10.96.0.11', 80), 'via'), 'via');
    assert.equal(authority, '10.96.0.11:80');
    const line = await agent.access(({ field }) => field('dst.hbone_addr') === '10.96.0.11:80');
    assert.equal(line.field('dst.addr'), `${waypoint.ipv4}:15008`);
    assert.equal(line.field('dst.workload'), 'waypoint');
    assert.equal(line.field('dst.service'), 'guarded.demo.svc.cluster.local');
  });
});

function octets(ip: string): number[] {
  return ip.split('.').map(Number);
}

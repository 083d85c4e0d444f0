import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen, type Talk } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';

const hostname = (name: string) => `${name}.demo.svc.cluster.local`;
/** Where the waypoint takes what the agent has unwrapped. */
const TUNNEL_PORT = 15088;

/** The address of a PROXY header, version 2, in front of a connection (PROXY protocol §2.2). */
async function proxyDestination(connection: Talk): Promise<{ ip: string; port: number }> {
  const head = await connection.read(16);
  const rest = await connection.read(head.readUInt16BE(14));
  assert.equal(head.toString('latin1', 0, 12), '\r\n\r\n\0\r\nQUIT\n');
  assert.equal(head[13], 0x11, 'TCP over IPv4');
  return { ip: [...rest.subarray(4, 8)].join('.'), port: rest.readUInt16BE(10) };
}

/** A waypoint that knows nothing but where each connection wants to go. */
function forwarder(waypoint: Pod, destination: (connection: Talk) => Promise<{ ip: string; port: number }>) {
  return async (connection: Talk) => {
    const { ip, port } = await destination(connection);
    const upstream = dial(waypoint, ip, port);
    connection.socket.pipe(upstream.socket).pipe(connection.socket);
  };
}

test('connections go through the waypoint of their destination, and the waypoint reaches it', async (t) => {
  const network = await meshNetwork(t);
  const [client, waypoint, server] = [
    await network.addPod('client'),
    await network.addPod('waypoint'),
    await network.addPod('server'),
  ];
  const gateway = (destination: string) => ({ waypoint: { destination, hboneMtlsPort: 15008 } });
  const served = {
    'by-address': { vip: '10.96.0.10', ...gateway(`/${waypoint.ipv4}`) },
    'by-vip': { vip: '10.96.0.11', ...gateway('/10.96.0.50') },
    'by-service-hostname': { vip: '10.96.0.12', ...gateway(`demo/${hostname('waypoint')}`) },
    'by-workload-hostname': { vip: '10.96.0.13', ...gateway('demo/waypoint.example.com') },
  };
  const mesh = (applicationTunnel: Record<string, unknown>) => ({
    workloads: [
      workload(client),
      workload(waypoint, {
        hostname: 'waypoint.example.com',
        applicationTunnel,
        services: { [`demo/${hostname('waypoint')}`]: {} },
      }),
      workload(server, {
        ...gateway(`/${waypoint.ipv4}`),
        services: Object.fromEntries(Object.keys(served).map((name) => [`demo/${hostname(name)}`, { 80: 8080 }])),
      }),
    ],
    services: [
      // A waypoint need not list the ports of the services behind it.
      service('waypoint', '10.96.0.50', {}),
      ...Object.entries(served).map(([name, { vip, waypoint: by }]) => ({
        ...service(name, vip, { 80: 8080 }),
        waypoint: by,
      })),
      { ...service('unknown', '10.96.0.14', { 80: 8080 }), ...gateway('demo/nobody.example.com') },
    ],
  });
  const agent = await startAgent({ network, mesh: mesh({ protocol: 'PROXY', port: TUNNEL_PORT }) });
  for (const pod of [client, waypoint, server]) await agent.enrol(pod);
  await listen(server, 8080, { serve: ({ socket, peer }) => socket.end(`server, called by ${peer.ip}`) });
  let plainDestination: { ip: string; port: number } | null = null;
  const asked: string[] = [];
  await listen(waypoint, TUNNEL_PORT, {
    serve: forwarder(waypoint, async (connection) => {
      const destination = plainDestination ?? (await proxyDestination(connection));
      asked.push(`${destination.ip}:${destination.port}`);
      return destination;
    }),
  });
  const answer = `server, called by ${waypoint.ipv4}`;

  for (const [name, { vip }] of Object.entries(served)) {
    await t.test(`the waypoint of a service, ${name}`, async () => {
      const from = agent.here();
      assert.equal(await exchange(dial(client, vip, 80), ''), answer);
      assert.equal(asked.at(-1), `${vip}:80`);
      const line = await agent.access(
        ({ field }) => field('direction') === 'outbound' && field('src.workload') === 'client',
        from,
      );
      assert.equal(line.field('dst.workload'), 'waypoint');
      assert.equal(line.field('dst.addr'), `${waypoint.ipv4}:15008`);
      assert.equal(line.field('dst.hbone_addr'), `${vip}:80`);
      assert.equal(line.field('dst.service'), hostname(name));
      const onwards = await agent.access(
        ({ field }) => field('direction') === 'outbound' && field('src.workload') === 'waypoint',
        from,
      );
      assert.equal(onwards.field('dst.workload'), 'server', 'it does not go through itself');
    });
  }

  await t.test('the waypoint of a workload', async () => {
    const from = agent.here();
    assert.equal(await exchange(dial(client, server.ipv4, 8080), ''), answer);
    assert.equal(asked.at(-1), `${server.ipv4}:8080`);
    const line = await agent.access(
      ({ field }) => field('direction') === 'outbound' && field('src.workload') === 'client',
      from,
    );
    assert.equal(line.field('dst.workload'), 'waypoint');
    assert.equal(line.field('dst.hbone_addr'), `${server.ipv4}:8080`);
  });

  await t.test('a waypoint that is not known is never passed by', async () => {
    assert.equal(await fate(dial(client, '10.96.0.14', 80)), 'ECONNRESET');
    const line = await agent.access(({ field }) => field('dst.addr') === '10.96.0.14:80');
    assert.equal(line.field('error'), 'unknown waypoint: waypoint nobody.example.com not found');
  });

  await t.test('a waypoint that takes plain TCP gets what the tunnel carried', async () => {
    await agent.apply(mesh({ protocol: 'NONE', port: TUNNEL_PORT }));
    plainDestination = { ip: server.ipv4, port: 8080 };
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), ''), answer);
  });

  await t.test('an edit that takes the waypoint away counts for the next connection', async () => {
    const { workloads, services } = mesh({ protocol: 'NONE', port: TUNNEL_PORT });
    await agent.apply({ workloads, services: services.map((each) => ({ ...each, waypoint: undefined })) });
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), ''), `server, called by ${client.ipv4}`);
  });
});

import assert from 'node:assert/strict';
import type { ServerHttp2Stream } from 'node:http2';
import { test } from 'node:test';
import { credentials } from '../support/hbone-client.ts';
import { type HboneServerBehaviour, listenHbone, type RawHeaders } from '../support/hbone-server.ts';
import { identityOf, meshNetwork, service, startAgent, type TestAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen, listenEcho, type Talk } from '../support/pod-sockets.ts';
import { matching, total } from '../support/samples.ts';

const VIP = '10.96.0.10';
const PEM_OF_NOBODY = 'spiffe://cluster.local/ns/demo/sa/somebody-else';

test('workloads of another network are reached through its gateway, by a tunnel inside a tunnel', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const gateway = await network.addPod('gateway');
  // Nothing leads from one network to the other but the gateway.
  for (const table of ['iptables', 'ip6tables'] as const) {
    const from = table === 'iptables' ? client.ipv4 : client.ipv6;
    if (from !== null) await server.run([table, '-I', 'INPUT', '-s', from, '-j', 'DROP']);
  }
  const hostOf = (name: string) => `${name}.demo.svc.cluster.local`;
  const hostname = hostOf('server');
  const toServer = { [`demo/${hostname}`]: { 80: 8080 }, [`demo/${hostOf('other')}`]: { 80: 8080 } };
  // All that the west knows of what is beyond the gateway.
  const beyond = (name: string, destination: string) => ({
    ...workload(server, { network: 'east', workloadIps: [], services: { [`demo/${name}`]: { 80: 8080 } } }),
    uid: `east/SplitHorizonWorkload/${name}`,
    ...{ name: 'beyond', workloadName: 'beyond', serviceAccount: 'beyond' },
    networkGateway: { destination, hboneMtlsPort: 15008 },
  });
  const west = await startAgent({
    network,
    name: 'west',
    mesh: {
      workloads: [
        workload(client, { network: 'west', clusterId: 'west-cluster' }),
        workload(gateway, { network: 'east', services: { [`demo/${hostOf('east-west')}`]: { 15008: 15008 } } }),
        beyond(hostname, `east/${gateway.ipv4}`),
        beyond(hostOf('other'), `demo/${hostOf('east-west')}`),
      ],
      services: [
        { ...service('east-west', '10.96.7.1', { 15008: 15008 }), vips: ['east/10.96.7.1'] },
        ...Object.entries({ server: VIP, other: '10.96.0.12' }).map(([name, vip]) => ({
          ...service(name, vip, { 80: 8080 }),
          vips: [`west/${vip}`],
          subjectAltNames: [identityOf(server)],
        })),
      ],
    },
    env: {
      NETWORK: 'west',
      ZTUNNEL_WORKER_THREADS: '1',
      // Thirty of them at once are nobody's silence.
      CULVERT_TLS_HANDSHAKE_TIMEOUT: '6s',
    },
  });
  await west.enrol(client);
  const east = await startAgent({
    network,
    name: 'east',
    mesh: {
      workloads: [
        workload(server, {
          network: 'east',
          clusterId: 'east-cluster',
          workloadType: 'deployment',
          workloadName: 'server-v1',
          locality: { region: 'r-east', zone: 'z-east' },
          services: toServer,
        }),
      ],
      services: ['server', 'other'].map((name) => ({ ...service(name, '', { 80: 8080 }), vips: [] })),
    },
    env: { NETWORK: 'east', ZTUNNEL_WORKER_THREADS: '1' },
  });
  await east.enrol(server);
  const atServer = await listen(server, 9090);
  await listenEcho(server, 8080);

  // The gateway, of Node's own TLS and HTTP/2: it ends the outer tunnel and passes bytes on to the workload's port 15008.
  let carried = Buffer.alloc(0);
  let sessions = 0;
  const requests: RawHeaders[] = [];
  const passOn = (stream: ServerHttp2Stream, raw: RawHeaders) => {
    requests.push(raw);
    const { socket } = dial(gateway, server.ipv4, 15008);
    socket.on('error', () => stream.close(10));
    stream.respond({ ':status': 200 });
    stream.on('data', (bytes: Buffer) => {
      if (carried.length < 100_000) carried = Buffer.concat([carried, bytes]);
    });
    stream.pipe(socket).pipe(stream);
    stream.on('aborted', () => socket.resetAndDestroy());
  };
  const honest: HboneServerBehaviour = {
    credentials: await credentials(west.caDir, identityOf(gateway)),
    session: () => void sessions++,
    request: passOn,
  };
  let behaviour = honest;
  await listenHbone(gateway, () => behaviour);

  const call = () => dial(client, VIP, 80);
  const outbound = (connection: Talk, agent: TestAgent = west) =>
    agent.access(({ field }) => field('src.addr') === `${client.ipv4}:${connection.localPort}`);

  await t.test('bytes arrive, the gateway does not see them, and both sides know who the other is', async () => {
    const connection = call();
    assert.equal(await exchange(connection, 'a word in confidence'), 'a word in confidence');
    assert.equal(carried.includes('confidence'), false);
    // A TLS record with a handshake in it.
    assert.deepEqual([...carried.subarray(0, 2)], [22, 3]);
    const headers = Object.fromEntries(pairs(requests[0]!));
    assert.equal(headers[':authority'], `${hostname}:80`);
    assert.equal(headers['x-forwarded-network'], undefined);
    assert.match(headers.forwarded!, new RegExp(`^for="${client.ipv4}:${connection.localPort}";host=${hostname}$`));

    const line = await outbound(connection);
    assert.equal(line.field('error'), '');
    assert.deepEqual(
      ['src.identity', 'dst.addr', 'dst.hbone_addr', 'dst.service', 'dst.workload', 'dst.identity', 'dst.cluster'].map(
        line.field,
      ),
      [
        identityOf(client),
        `${gateway.ipv4}:15008`,
        `${hostname}:80`,
        hostname,
        'server',
        identityOf(server),
        'east-cluster',
      ],
    );
    const far = await east.access(({ field }) => field('direction') === 'inbound' && field('error') === '');
    assert.deepEqual(
      ['src.identity', 'src.workload', 'src.cluster', 'dst.service', 'dst.hbone_addr', 'bytes_recv'].map(far.field),
      [identityOf(client), 'client', 'west-cluster', hostname, `${hostname}:80`, '20'],
    );
    const [sample] = matching(await west.metrics(), 'istio_tcp_connections_opened_total', {
      destination_workload: 'server-v1',
    });
    const labels = new Map(sample!.labels);
    assert.equal(labels.get('destination_principal'), identityOf(server));
    assert.equal(labels.get('destination_cluster'), 'east-cluster');
    assert.equal(labels.get('destination_region'), 'r-east');
    assert.equal(labels.get('connection_security_policy'), 'mutual_tls');
  });

  await t.test('a gateway is found by the name of its service too', async () => {
    const connection = dial(client, '10.96.0.12', 80);
    assert.equal(await exchange(connection, 'by name'), 'by name');
    const line = await outbound(connection);
    assert.deepEqual(['error', 'dst.addr', 'dst.hbone_addr', 'dst.workload'].map(line.field), [
      '',
      `${gateway.ipv4}:15008`,
      `${hostOf('other')}:80`,
      'server',
    ]);
  });

  await t.test('many connections share the tunnel to the gateway, each with a tunnel of its own inside', async () => {
    const onlyOuterTunnel = () =>
      west.until(
        'rid of the inner tunnels',
        async () => total(await west.metrics(), 'culvert_tunnels_open', { role: 'client' }),
        (tunnels) => tunnels === 1,
      );
    await west.atRest();
    await onlyOuterTunnel();
    const before = requests.length;
    const connections = await Promise.all(
      Array.from({ length: 30 }, async (_, i) => {
        const connection = call();
        connection.send(`number ${i}`);
        assert.equal(await connection.text(`number ${i}`.length), `number ${i}`);
        return connection;
      }),
    );
    assert.equal(sessions, 1);
    assert.equal(requests.length - before, 30);
    const open = (await west.dump()).workloadState['uid-client']!.connections!.outbound;
    assert.deepEqual(
      open.map(({ protocol }) => protocol),
      Array.from({ length: 30 }, () => 'DOUBLEHBONE'),
    );
    assert.equal(total(await west.metrics(), 'culvert_tunnels_open', { role: 'client' }), 31);
    for (const connection of connections) {
      connection.finish();
      assert.equal(await fate(connection), 'fin');
    }
    await onlyOuterTunnel();
    await west.until(
      'rid of the streams',
      async () => total(await west.metrics(), 'culvert_streams_open', { role: 'client' }),
      (streams) => streams === 0,
    );
  });

  await t.test('bulk goes both ways intact', async () => {
    const bytes = Buffer.alloc(8 * 1024 * 1024);
    for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);
    const connection = call();
    connection.send(bytes);
    connection.finish();
    assert.ok((await connection.rest()).equals(bytes));
    connection.socket.destroy();
  });

  await t.test('a slow reader is waited for, without the agent taking everything in', async () => {
    const connection = call();
    const { socket } = connection;
    const chunk = Buffer.alloc(1024 * 1024, 'x');
    let written = 0;
    const stalls = () =>
      new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(true), 1500);
        written += chunk.length;
        socket.write(chunk, () => {
          clearTimeout(timer);
          resolve(false);
        });
      });
    while (!(await stalls())) assert.ok(written < 200 * chunk.length, 'everything is taken in');
    connection.finish();
    assert.equal((await connection.rest()).length, written);
    socket.destroy();
  });

  await t.test('resets and half-closes go through', async () => {
    const pair = async () => {
      const near = dial(client, '10.96.0.11', 90);
      near.send('?');
      const far = await atServer.accept();
      assert.equal(await far.text(1), '?');
      return { near, far };
    };
    await Promise.all([west.apply(withSecondService(client.name)), east.apply(withSecondService(server.name))]);
    const first = await pair();
    first.near.finish();
    assert.equal((await first.far.rest()).length, 0);
    first.far.send('still here');
    first.far.finish();
    assert.equal((await first.near.rest()).toString(), 'still here');
    const second = await pair();
    second.near.reset();
    assert.equal(await fate(second.far), 'ECONNRESET');
    const third = await pair();
    third.far.reset();
    assert.equal(await fate(third.near), 'ECONNRESET');
  });

  function withSecondService(of: string) {
    const second = 'second.demo.svc.cluster.local';
    const services = { ...toServer, [`demo/${second}`]: { 90: 9090 } };
    if (of === server.name) {
      return {
        workloads: [workload(server, { network: 'east', services })],
        services: [
          { ...service('server', '10.96.7.7', { 80: 8080 }), vips: ['east/10.96.7.7'] },
          { ...service('second', '10.96.7.8', { 90: 9090 }), vips: ['east/10.96.7.8'] },
        ],
      };
    }
    const subjectAltNames = [identityOf(server)];
    return {
      workloads: [
        workload(client, { network: 'west', clusterId: 'west-cluster' }),
        workload(gateway, { network: 'east' }),
        { ...beyond(hostname, `east/${gateway.ipv4}`), services },
      ],
      services: [
        { ...service('server', VIP, { 80: 8080 }), vips: [`west/${VIP}`], subjectAltNames },
        { ...service('second', '10.96.0.11', { 90: 9090 }), vips: ['west/10.96.0.11'], subjectAltNames },
      ],
    };
  }

  /** How a connection ends, and what the agent's log says of it. */
  async function attempt(): Promise<{ outcome: string; error: string; flag: string[] }> {
    const flagsOf = async () =>
      new Map(
        matching(await west.metrics(), 'istio_tcp_connections_closed_total').map(({ labels, value }) => {
          const flag = new Map(labels).get('response_flags')!;
          return [`${flag} ${JSON.stringify(labels)}`, value] as const;
        }),
      );
    // Nothing of before is counted as of this one.
    await west.atRest();
    const before = await flagsOf();
    const connection = call();
    connection.send('hello');
    const outcome = await fate(connection);
    const line = await outbound(connection);
    const flag = [...(await flagsOf())]
      .filter(([key, value]) => value > (before.get(key) ?? 0))
      .map(([key]) => key.split(' ', 1)[0]!);
    return { outcome, error: line.field('error'), flag };
  }

  await t.test('a gateway that refuses', async () => {
    behaviour = { ...honest, request: (stream) => stream.respond({ ':status': 503 }, { endStream: true }) };
    assert.deepEqual(await attempt(), {
      outcome: 'ECONNRESET',
      error: `network gateway ${gateway.ipv4}:15008: http status: 503 Service Unavailable`,
      flag: ['CONNECT'],
    });
  });

  await t.test('a far end with another identity than the service has', async () => {
    const impostor = await network.addPod('impostor');
    const shown = await credentials(west.caDir, PEM_OF_NOBODY);
    await listenHbone(impostor, () => ({ credentials: shown }));
    behaviour = {
      ...honest,
      request(stream) {
        stream.respond({ ':status': 200 });
        const { socket } = dial(gateway, impostor.ipv4, 15008);
        stream.pipe(socket).pipe(stream);
      },
    };
    const { outcome, error, flag } = await attempt();
    assert.equal(outcome, 'ECONNRESET');
    assert.match(
      error,
      /^beyond network gateway .*: .*identity verification error: peer did not present the expected SAN/,
    );
    assert.ok(error.includes(identityOf(server)) && error.includes(PEM_OF_NOBODY), error);
    assert.deepEqual(flag, ['IDENTITY_ERROR']);
  });

  await t.test('a far end that says nothing', async () => {
    behaviour = { ...honest, request: (stream) => stream.respond({ ':status': 200 }) };
    const { outcome, error, flag } = await attempt();
    assert.equal(outcome, 'ECONNRESET');
    assert.match(error, /^beyond network gateway .*: tls handshake error: the peer took too long$/);
    assert.deepEqual(flag, ['TLS_FAILURE']);
  });

  await t.test('a gateway that ends the stream, or resets it, during the handshake', async () => {
    behaviour = {
      ...honest,
      request(stream) {
        stream.respond({ ':status': 200 });
        stream.once('data', () => stream.end());
      },
    };
    assert.match((await attempt()).error, /tls handshake error: the peer closed the connection during the handshake$/);
    behaviour = {
      ...honest,
      request(stream) {
        stream.respond({ ':status': 200 });
        stream.once('data', () => stream.close(10));
      },
    };
    assert.match((await attempt()).error, /tls handshake error: Connection reset by peer/);
  });

  await t.test('a gateway that dies under a connection', async () => {
    let session: { destroy(): void } | undefined;
    behaviour = {
      ...honest,
      request(stream, raw) {
        session = stream.session;
        passOn(stream, raw);
      },
    };
    const connection = call();
    connection.send('ping');
    assert.equal(await connection.text(4), 'ping');
    session!.destroy();
    assert.equal(await fate(connection), 'ECONNRESET');
    // The next one gets a new tunnel.
    assert.equal(await exchange(call(), 'hello'), 'hello');
    assert.equal(sessions, 2);
  });

  await t.test('with a stop of the agent: what is open goes on', async () => {
    behaviour = honest;
    const connection = call();
    connection.send('ping');
    assert.equal(await connection.text(4), 'ping');
    const stopped = west.stop();
    await west.line('shutting down');
    assert.equal(await exchange(connection, 'last words'), 'last words');
    assert.equal(await stopped, 0);
    assert.doesNotMatch(west.output() + east.output(), /error in the agent/);
  });
});

function pairs(raw: RawHeaders): [string, string][] {
  return raw.flatMap((name, i) => (i % 2 === 0 ? [[name, raw[i + 1]!] as [string, string]] : []));
}

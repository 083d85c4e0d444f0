import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { type Credentials, credentials, openTunnel, request, secure } from '../support/hbone-client.ts';
import { identityOf, meshNetwork, startAgent, type TestAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho, patiently, type Talk } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

test('who is not of the mesh is turned away at 15008, with one line in the log, and nobody else notices', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const stranger = await network.addPod('stranger');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(client), workload(server)] },
    env: { CULVERT_TLS_HANDSHAKE_TIMEOUT: '3s' },
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  const neighbour = dial(client, server.ipv4, 8080);
  await alive(neighbour);

  const talks: { name: string; say: (connection: Talk) => unknown; error: RegExp }[] = [
    {
      name: 'plain HTTP',
      say: (c) => c.send('GET / HTTP/1.1\r\nhost: server\r\n\r\n'),
      error: /^tls handshake error: the peer does not speak TLS/,
    },
    {
      name: 'HTTP/2 without TLS',
      say: (c) => c.send('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      error: /^tls handshake error: the peer does not speak TLS/,
    },
    {
      name: 'garbage',
      say: (c) => c.send(Buffer.alloc(500, 0xa5)),
      error: /^tls handshake error: the peer does not speak TLS/,
    },
    { name: 'half a TLS record, then nothing', say: (c) => c.send('\x16\x03\x01\x02\x00\x01'), error: /took too long/ },
    { name: 'nothing', say: () => {}, error: /took too long/ },
    { name: 'nothing but a FIN', say: (c) => c.finish(), error: /closed the connection during the handshake/ },
    {
      name: 'a RST',
      async say(connection) {
        await established(connection);
        connection.reset();
      },
      error: /^tls handshake error: Connection reset by peer/,
    },
  ];
  for (const { name, say, error } of talks) {
    await t.test(name, async () => {
      const before = agent.here();
      const connection = dial(stranger, server.ipv4, 15008);
      await say(connection);
      if (!connection.socket.destroyed) assert.match(await fate(connection), /^(fin|ECONNRESET)$/);
      const line = await agent.access(() => true, before);
      assert.equal(line.level, 'warn');
      assert.equal(line.message, 'connection failed');
      assert.equal(line.field('dst.addr'), `${server.ipv4}:15008`);
      assert.match(line.field('error'), error);
      await alive(neighbour);
    });
  }

  const otherCa = join(network.folder, 'other-ca');
  const hour = 3_600_000;
  const certificates: { name: string; show: () => Promise<Partial<Credentials>>; error: RegExp }[] = [
    { name: 'no certificate', show: async () => ({ ca: (await ours()).ca }), error: /certificate/ },
    {
      name: 'a certificate of another trust domain',
      show: () => credentials(agent.caDir, 'spiffe://elsewhere.example/ns/demo/sa/client'),
      error: /trust ?domain/,
    },
    {
      name: 'a certificate of another root',
      show: async () => ({ ...(await credentials(otherCa, identityOf(client))), ca: (await ours()).ca }),
      error: /self-signed|issuer/,
    },
    {
      name: 'an expired certificate',
      show: () => credentials(agent.caDir, identityOf(client), { at: Date.now() - hour / 2, ttl: hour / 4 }),
      error: /expired/,
    },
  ];
  async function ours(): Promise<Credentials> {
    return credentials(agent.caDir, identityOf(client));
  }
  for (const { name, show, error } of certificates) {
    await t.test(name, async (t) => {
      const before = agent.here();
      const tls = await secure(stranger, server.ipv4, 15008, await show());
      assert.match(await tlsFate(tls), /^(ECONNRESET|ERR_SSL_.+)$/);
      const line = await agent.access(() => true, before);
      assert.equal(line.level, 'warn');
      assert.equal(line.message, 'connection failed');
      assert.match(line.field('error'), /^tls/);
      assert.match(line.field('error'), error);
      t.diagnostic(line.field('error'));
      await alive(neighbour);
    });
  }

  await t.test('TLS 1.2', async () => {
    const before = agent.here();
    const { socket } = dial(stranger, server.ipv4, 15008);
    const { connect } = await import('node:tls');
    const tls = connect({ socket, ...(await ours()), maxVersion: 'TLSv1.2', checkServerIdentity: () => undefined });
    assert.match(await tlsFate(tls), /^ERR_SSL_/);
    const line = await agent.access(() => true, before);
    assert.match(line.field('error'), /^tls handshake error: .*(protocol|version)/);
  });

  await t.test('each is counted by its reason, none as traffic', async () => {
    const samples = await agent.metrics();
    assert.ok(total(samples, 'culvert_early_denies_total', { reporter: 'destination' }) >= 12);
    assert.equal(total(samples, 'istio_tcp_connections_opened_total', { reporter: 'destination' }), 1);
  });

  await t.test('no socket is left of them', async () => {
    const before = agent.here();
    neighbour.socket.destroy();
    // Both of its lines: those of the next ones are then the first that follow.
    for (const side of ['outbound', 'inbound']) await agent.access(({ field }) => field('direction') === side, before);
    await onlyTunnelsLeft(agent);
  });

  await t.test('who speaks TLS but not HTTP/2 loses the connection', async () => {
    const tls = await secure(stranger, server.ipv4, 15008, await ours());
    const before = agent.here();
    tls.write('GET / HTTP/1.1\r\nhost: server\r\n\r\n'.repeat(3));
    assert.match(await tlsFate(tls), /^(fin|ECONNRESET|ERR_SSL_.+)$/);
    const line = await agent.access(() => true, before);
    assert.equal(line.message, 'connection failed');
    assert.equal(line.field('error'), 'h2 failed: the peer does not speak HTTP/2 (no connection preface)');
  });

  const requests: {
    name: string;
    authority: string;
    headers?: Record<string, string>;
    status: number;
    error: string;
  }[] = [
    {
      name: 'another method',
      authority: `${server.ipv4}:8080`,
      headers: { ':method': 'GET', ':scheme': 'https', ':path': '/' },
      status: 400,
      error: 'expected method CONNECT, got GET',
    },
    {
      name: 'an address that is not the pod’s',
      authority: `${client.ipv4}:8080`,
      status: 400,
      error: `ip mismatch: ${server.ipv4} != ${client.ipv4}`,
    },
    {
      name: 'an authority without a port',
      authority: server.ipv4,
      status: 400,
      error: `no valid authority pseudo header: ${server.ipv4}`,
    },
    {
      name: 'an authority with port 0',
      authority: `${server.ipv4}:0`,
      status: 400,
      error: `no valid authority pseudo header: ${server.ipv4}:0`,
    },
    {
      name: 'an unknown hostname',
      authority: 'nobody.demo.svc.cluster.local:80',
      status: 503,
      error: 'no service or workload for hostname: nobody.demo.svc.cluster.local',
    },
    ...[15001, 15006, 15008].map((port) => ({
      name: `the agent's own port ${port}`,
      authority: `${server.ipv4}:${port}`,
      status: 503,
      error: 'attempted recursive call to ourselves',
    })),
  ];
  await t.test('requests that cannot be served get their status, and the tunnel goes on', async (t) => {
    const session = await openTunnel(stranger, server.ipv4, await ours());
    for (const { name, authority, headers, status, error } of requests) {
      await t.test(`${name}: ${status}`, async () => {
        const before = agent.here();
        const answer = await request(session, authority, headers);
        assert.equal(answer.status, status);
        assert.deepEqual(Object.keys(answer.headers), [':status']);
        const line = await agent.access(() => true, before);
        assert.equal(line.message, 'connection failed');
        assert.equal(line.field('error'), error);
        assert.equal(line.field('direction'), 'inbound');
      });
    }
    const refused = await request(session, `${server.ipv4}:9`);
    assert.equal(refused.status, 503);
    const { stream, status } = await request(session, `${server.ipv4}:8080`);
    assert.equal(status, 200);
    stream.end('hello');
    assert.equal(await patiently('no echo', textOf(stream)), 'hello');
    session.destroy();
  });

  await t.test('the neighbourhood is well', async () => {
    assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');
    assert.doesNotMatch(agent.output(), /error in the agent|data-plane thread/);
  });
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

/** The other side knows of the connection: one that is reset before has never been. */
function established({ socket }: Talk): Promise<void> {
  return new Promise((resolve) => socket.write('', () => resolve()));
}

/** How the other side ends a TLS connection. */
function tlsFate(tls: TLSSocket): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  tls.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  tls.once('end', () => resolve('fin'));
  tls.resume();
  return patiently('the connection is still there', promise).finally(() => tls.destroy());
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Waits until the only accepted sockets are the two ends of the neighbours' tunnel. */
async function onlyTunnelsLeft(agent: TestAgent): Promise<void> {
  await agent.until(
    'rid of the strangers',
    async () => {
      const samples = await agent.metrics();
      return {
        sockets: total(samples, 'istio_tcp_sockets_open'),
        tunnels: total(samples, 'culvert_tunnels_open', { role: 'server' }),
        expected: total(samples, 'culvert_tunnels_open', { role: 'client' }),
      };
    },
    ({ sockets, tunnels, expected }) => sockets === tunnels && tunnels === expected,
  );
}

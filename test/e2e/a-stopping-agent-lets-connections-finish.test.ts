import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { credentials, openTunnel, request, secure } from '../support/hbone-client.ts';
import { identityOf, meshNetwork, startAgent, type TestAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho, patiently, refused, type Talk } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

test('an agent that is told to stop lets connections finish', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  await listenEcho(server, 8080);
  let agents = 0;

  async function start(t: TestContext, env: Readonly<Record<string, string>> = {}): Promise<TestAgent> {
    const agent = await startAgent({
      network,
      name: `agent-${++agents}`,
      mesh: { workloads: [workload(client), workload(server), workload(outside, { protocol: 'TCP' })] },
      env: { CONNECTION_TERMINATION_DEADLINE: '150s', ...env },
    });
    t.after(() => agent.stop());
    for (const pod of [client, server]) await agent.enrol(pod);
    return agent;
  }

  async function connected(from = client): Promise<Talk> {
    const connection = dial(from, server.ipv4, 8080);
    await alive(connection);
    return connection;
  }

  await t.test('with SIGTERM: what is open goes on, what is new is refused, then it exits with 0', async (t) => {
    const agent = await start(t);
    const inTunnel = await connected();
    const inPlain = await connected(outside);
    const idle = await openTunnel(outside, server.ipv4, await credentials(agent.caDir, identityOf(client)));
    const busy = await openTunnel(outside, server.ipv4, await credentials(agent.caDir, identityOf(client)));
    const stream = (await request(busy, `${server.ipv4}:8080`)).stream;
    await patiently('no SETTINGS', Promise.all([settings(idle), settings(busy)]));
    const goneAway = [idle, busy].map((session) => patiently('no GOAWAY', once(session, 'goaway')));

    const stopped = agent.stop();
    await Promise.all(goneAway);
    await refused(client, server.ipv4, 8080);
    await refused(outside, server.ipv4, 8080);
    await refused(outside, server.ipv4, 15008);
    assert.deepEqual(await agent.ready(), { status: 500, body: 'not ready, pending: workload proxy manager\n' });
    await alive(inTunnel);
    await alive(inPlain);
    stream.write('ping');
    assert.equal(String((await patiently('no echo', once(stream, 'data')))[0]), 'ping');

    stream.end();
    assert.equal(await exchange(inPlain, 'last'), 'last');
    await alive(inTunnel);
    assert.equal(await exchange(inTunnel, 'words'), 'words');
    assert.equal(await patiently('still running', stopped), 0);
    assert.match(agent.output(), /shutdown complete/);
    // Who comes while the threads close their listeners, one after the other, may be taken, carry nothing, and fail.
    assert.doesNotMatch(agent.output(), /bytes_sent=[1-9].*error="/);
  });

  await t.test('the deadline cuts what is still open, and the log says which', async (t) => {
    const agent = await start(t, { CONNECTION_TERMINATION_DEADLINE: '1s' });
    const open = await connected();
    const started = performance.now();
    const stopped = agent.stop();
    assert.equal(await fate(open), 'ECONNRESET');
    assert.equal(await stopped, 0);
    const took = performance.now() - started;
    assert.ok(took >= 950, `${took} ms`);
    assert.match(agent.output(), /drain duration expired with pending connections, forcefully shutting down/);
    // The thread of the other side may hear of it from this one first.
    const line = await agent.access(({ field }) => field('error') === 'connection closed due to connection drain');
    assert.equal(line.level, 'error');
  });

  await t.test('without connections it ends at once, also by /quitquitquit', async (t) => {
    const agent = await start(t);
    await exchange(await connected(), 'bye');
    assert.deepEqual(await agent.post('/quitquitquit'), { status: 200, body: 'shutdown now\n' });
    // Not only at the deadline, much later.
    assert.equal(await patiently('still running', agent.exited), 0);
  });

  await t.test('a second SIGINT ends it at once', async (t) => {
    const agent = await start(t);
    const open = await connected();
    agent.child.kill('SIGINT');
    await agent.line('shutting down');
    await alive(open);
    agent.child.kill('SIGINT');
    assert.equal(await patiently('still running', agent.exited), 0);
    open.socket.destroy();
  });

  await t.test('a tunnel that was in its handshake is told to go elsewhere', async (t) => {
    const agent = await start(t, { ZTUNNEL_WORKER_THREADS: '1' });
    const shown = await credentials(agent.caDir, identityOf(client));
    const open = await connected();
    const { socket: early } = dial(outside, server.ipv4, 15008);
    // A tunnel opens and closes while the other is in its handshake.
    (await openTunnel(outside, server.ipv4, shown)).destroy();
    await agent.until(
      'rid of the tunnel',
      () => agent.metrics(),
      (samples) => total(samples, 'culvert_tunnels_open', { role: 'server' }) === 1,
    );
    const stopped = agent.stop();
    await agent.line('shutting down');
    const { connect: connectTls } = await import('node:tls');
    const tls = connectTls({ socket: early, ...shown, ALPNProtocols: ['h2'], checkServerIdentity: () => undefined });
    await patiently('no handshake', once(tls, 'secureConnect'));
    const session = connect('https://hbone.invalid', { createConnection: () => tls });
    session.on('error', () => {});
    await patiently('no GOAWAY', once(session, 'goaway'));
    session.destroy();
    open.socket.destroy();
    assert.equal(await patiently('still running', stopped), 0);
  });

  await t.test('every tunnel counts as open until it closes', async (t) => {
    const agent = await start(t, { ZTUNNEL_WORKER_THREADS: '1' });
    const shown = await credentials(agent.caDir, identityOf(client));
    const first = await secure(outside, server.ipv4, 15008, shown);
    const { socket: early } = dial(outside, server.ipv4, 15008);
    const open = (count: number) =>
      agent.until(
        `at ${count} tunnels`,
        async () => total(await agent.metrics(), 'culvert_tunnels_open', { role: 'server' }),
        (tunnels) => tunnels === count,
      );
    await open(1);
    first.destroy();
    await open(0);
    const { connect: connectTls } = await import('node:tls');
    const tls = connectTls({ socket: early, ...shown, ALPNProtocols: ['h2'], checkServerIdentity: () => undefined });
    await patiently('no handshake', once(tls, 'secureConnect'));
    await open(1);
    tls.destroy();
    await open(0);
  });
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

function settings(session: ReturnType<typeof connect>): Promise<unknown> {
  return session.remoteSettings.maxConcurrentStreams === 200 ? Promise.resolve() : once(session, 'remoteSettings');
}

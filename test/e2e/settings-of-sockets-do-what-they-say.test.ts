import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { meshNetwork, startAgent, type TestAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen, type Talk } from '../support/pod-sockets.ts';

test('settings of sockets do what they say', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  await listen(server, 8080, {
    serve({ socket, peer }) {
      socket.write(`${peer.ip}\n`);
      socket.pipe(socket);
    },
  });
  let agents = 0;
  async function start(t: TestContext, env: Record<string, string>): Promise<TestAgent> {
    const agent = await startAgent({
      network,
      name: `agent-${++agents}`,
      mesh: { workloads: [workload(client), workload(server), workload(outside, { protocol: 'TCP' })] },
      env,
    });
    t.after(() => agent.stop());
    for (const pod of [client, server]) await agent.enrol(pod);
    return agent;
  }

  await t.test('ENABLE_ORIG_SRC=false: the application sees its own pod’s address', async (t) => {
    await start(t, { ENABLE_ORIG_SRC: 'false' });
    for (const from of [client, outside]) {
      assert.equal(await exchange(dial(from, server.ipv4, 8080), ''), `${server.ipv4}\n`);
    }
  });

  await t.test('ENABLE_ORIG_SRC=true: it sees the client’s', async (t) => {
    await start(t, { ENABLE_ORIG_SRC: 'true' });
    for (const from of [client, outside]) {
      assert.equal(await exchange(dial(from, server.ipv4, 8080), ''), `${from.ipv4}\n`);
    }
  });

  await t.test('IPV6_ENABLED=false: listeners are IPv4 only', async (t) => {
    const agent = await start(t, { IPV6_ENABLED: 'false' });
    assert.equal(await exchange(dial(client, server.ipv4, 8080), ''), `${client.ipv4}\n`);
    if (server.ipv6 !== null) assert.equal(await fate(dial(outside, server.ipv6, 15008)), 'ECONNREFUSED');
    const { listeners } = (await agent.dump()).workloadState['uid-client']!;
    assert.ok(listeners!.every(({ address }) => address === '0.0.0.0'));
  });

  await t.test('INPOD_PORT_REUSE=false: a second agent is refused the ports, and the first is unharmed', async (t) => {
    const first = await start(t, { INPOD_PORT_REUSE: 'false', ZTUNNEL_WORKER_THREADS: '1' });
    const second = await startAgent({
      network,
      name: 'second',
      mesh: { workloads: [workload(client), workload(server)] },
      env: { INPOD_PORT_REUSE: 'false', ZTUNNEL_WORKER_THREADS: '1' },
      besides: first,
    });
    t.after(() => second.stop());
    assert.match(await second.line('failed to start proxy'), /[Aa]ddress already in use/);
    assert.equal((await second.ready()).status, 500);
    assert.equal(await exchange(dial(client, server.ipv4, 8080), ''), `${client.ipv4}\n`);
  });

  await t.test('CULVERT_MAX_CONNECTIONS_PER_POD: one more is refused, and says which setting did it', async (t) => {
    const agent = await start(t, { CULVERT_MAX_CONNECTIONS_PER_POD: '3', ZTUNNEL_WORKER_THREADS: '1' });
    const held: Talk[] = [];
    for (let i = 0; i < 3; i++) {
      const connection = dial(client, server.ipv4, 8080);
      await connection.text(client.ipv4.length + 1);
      held.push(connection);
    }
    assert.equal(await fate(dial(client, server.ipv4, 8080)), 'ECONNRESET');
    const line = await agent.access(({ message }) => message === 'connection failed');
    assert.match(line.field('error'), /3 outbound connections.*CULVERT_MAX_CONNECTIONS_PER_POD/);
    held.pop()!.socket.destroy();
    await agent.until(
      'rid of one, on both of its sides',
      async () => Object.values((await agent.dump()).workloadState),
      (pods) => pods.every(({ connections: c }) => c!.inbound.length + c!.outbound.length === 2),
    );
    assert.equal(await exchange(dial(client, server.ipv4, 8080), ''), `${client.ipv4}\n`);
    for (const { socket } of held) socket.destroy();
  });
});

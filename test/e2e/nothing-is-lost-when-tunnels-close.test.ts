import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { credentials, openTunnel, request } from '../support/hbone-client.ts';
import { identityOf, meshNetwork, startAgent, type TestAgent, workload } from '../support/mesh.ts';
import { dial, fate, listen, patiently, type Talk } from '../support/pod-sockets.ts';

test('nothing is lost when tunnels close', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const mesh = { workloads: [workload(client), workload(server, { node: 'node-b' })] };
  const near = await startAgent({ network, name: 'near', mesh, env: { ZTUNNEL_WORKER_THREADS: '1' } });
  await near.enrol(client);
  const atServer = await listen(server, 8080);
  let started = 0;

  /** The server's node has an agent for the time of one test. */
  async function far(): Promise<TestAgent> {
    const agent = await startAgent({
      network,
      name: `far-${++started}`,
      mesh,
      env: { NODE_NAME: 'node-b', ZTUNNEL_WORKER_THREADS: '1', CONNECTION_TERMINATION_DEADLINE: '150s' },
    });
    await agent.enrol(server);
    return agent;
  }

  async function pair(): Promise<{ near: Talk; far: Talk }> {
    const here = dial(client, server.ipv4, 8080);
    here.send('?');
    const there = await atServer.accept();
    assert.equal(await there.text(1), '?');
    return { near: here, far: there };
  }

  for (const reader of ['client', 'server'] as const) {
    await t.test(`an agent that stops delivers the last bytes to a ${reader} that is slow to read them`, async () => {
      const agent = await far();
      const pairs = await Promise.all(Array.from({ length: 8 }, pair));
      const bytes = pattern(3_000_000);
      for (const each of pairs) {
        const [from, to] = reader === 'client' ? [each.far, each.near] : [each.near, each.far];
        from.send(bytes);
        from.finish();
        to.finish();
      }
      const stopped = agent.stop();
      await agent.line('shutting down');
      for (const each of pairs) {
        // A piece at a time: windows and keep-alives cross what is on its way.
        const to = reader === 'client' ? each.near : each.far;
        for (let at = 0; at < bytes.length; at += 500_000) {
          assert.ok((await to.read(500_000)).equals(bytes.subarray(at, at + 500_000)));
          await new Promise((resolve) => setImmediate(resolve));
        }
        assert.equal(await fate(to), 'fin');
      }
      for (const each of pairs) for (const end of [each.near, each.far]) end.socket.destroy();
      assert.equal(await stopped, 0);
      assert.doesNotMatch(agent.output(), /error="/);
    });
  }

  await t.test('a peer that goes away first, with streams open, gets and gives all of them', async () => {
    const agent = await far();
    const session = await openTunnel(outside, server.ipv4, await credentials(agent.caDir, identityOf(client)));
    const streams = await Promise.all(
      Array.from({ length: 4 }, async () => (await request(session, `${server.ipv4}:8080`)).stream),
    );
    const ends = await Promise.all(streams.map(() => atServer.accept()));
    // GOAWAY, and nothing new; the streams go on.
    session.goaway(0);
    const tunnelClosed = patiently('the tunnel stays', once(session, 'close'));
    const bytes = pattern(1_000_000);
    await Promise.all(
      streams.map(async (stream, i) => {
        const end = ends[i]!;
        const chunks: Buffer[] = [];
        stream.on('data', (chunk: Buffer) => chunks.push(chunk));
        const ended = patiently('no end', once(stream, 'end'));
        stream.end(bytes);
        end.send(bytes);
        end.finish();
        assert.equal((await end.rest()).length, bytes.length);
        await ended;
        assert.ok(Buffer.concat(chunks).equals(bytes));
        end.socket.destroy();
      }),
    );
    await tunnelClosed;
    assert.equal(await agent.stop(), 0);
  });

  await t.test('an application that closes with unread bytes resets, and what it said before arrives', async () => {
    const agent = await far();
    for (let i = 0; i < 5; i++) {
      const { near: here, far: there } = await pair();
      there.send('enough');
      here.send(pattern(200_000));
      assert.equal(await here.text(6), 'enough');
      // Unread bytes lie in its socket: the kernel makes the close a reset.
      there.reset();
      assert.equal(await fate(here), 'ECONNRESET');
    }
    assert.equal(await agent.stop(), 0);
  });
});

function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i + 4 <= length; i += 4) bytes.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);
  return bytes;
}

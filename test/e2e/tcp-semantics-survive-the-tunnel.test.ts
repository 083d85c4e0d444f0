import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, fate, listen, type PodServer, type Talk } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';

test('TCP semantics survive the agent', async (t) => {
  const network = await meshNetwork(t);
  const captured = await network.addPod('captured');
  const plain = await network.addPod('plain');
  const server = await network.addPod('server');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(captured), workload(server), workload(plain, { protocol: 'TCP' })] },
  });
  await agent.enrol(captured);
  await agent.enrol(server);
  const atServer = await listen(server, 8080);
  const atPlain = await listen(plain, 8080);

  const paths: { name: string; from: Pod; to: Pod; target: PodServer }[] = [
    { name: 'through a tunnel', from: captured, to: server, target: atServer },
    { name: 'from outside to a captured pod', from: plain, to: server, target: atServer },
    { name: 'from a captured pod to the outside', from: captured, to: plain, target: atPlain },
  ];

  for (const { name, from, to, target } of paths) {
    /** Both ends of a new connection, with a byte exchanged so that the path is there. */
    async function pair(): Promise<{ near: Talk; far: Talk }> {
      const near = dial(from, to.ipv4, target.port);
      near.send('?');
      const far = await target.accept();
      assert.equal(await far.text(1), '?');
      return { near, far };
    }

    await t.test(`${name}: a client's FIN reaches the server, which goes on sending`, async () => {
      const { near, far } = await pair();
      near.send('request');
      near.finish();
      assert.equal((await far.rest()).toString(), 'request');
      far.send('an answer ');
      assert.equal(await near.text(10), 'an answer ');
      far.send('and more');
      far.finish();
      assert.equal((await near.rest()).toString(), 'and more');
      far.socket.destroy();
      near.socket.destroy();
    });

    await t.test(`${name}: a server's FIN reaches the client, which goes on sending`, async () => {
      const { near, far } = await pair();
      far.send('bye');
      far.finish();
      assert.equal((await near.rest()).toString(), 'bye');
      near.send('one ');
      assert.equal(await far.text(4), 'one ');
      near.send('two');
      near.finish();
      assert.equal((await far.rest()).toString(), 'two');
      far.socket.destroy();
      near.socket.destroy();
    });

    await t.test(`${name}: a client's RST is a RST for the server`, async () => {
      const { near, far } = await pair();
      near.reset();
      assert.equal(await fate(far), 'ECONNRESET');
    });

    await t.test(`${name}: a server's RST is a RST for the client`, async () => {
      const { near, far } = await pair();
      far.reset();
      assert.equal(await fate(near), 'ECONNRESET');
    });

    await t.test(`${name}: what was sent before a RST arrives before it`, async () => {
      for (let i = 0; i < 10; i++) {
        const { near, far } = await pair();
        const [from, to] = i % 2 === 0 ? [near, far] : [far, near];
        const heard = to.text(10);
        from.send('last words');
        from.reset();
        assert.equal(await heard, 'last words');
        assert.equal(await fate(to), 'ECONNRESET');
      }
    });

    await t.test(`${name}: a RST after a FIN of the other side is still a RST`, async () => {
      const first = await pair();
      first.near.finish();
      await first.far.rest();
      first.far.reset();
      assert.equal(await fate(first.near), 'ECONNRESET');
      const second = await pair();
      second.far.finish();
      await second.near.rest();
      second.near.reset();
      assert.equal(await fate(second.far), 'ECONNRESET');
    });

    await t.test(`${name}: a refused port is a RST for the client`, async () => {
      assert.equal(await fate(dial(from, to.ipv4, 9)), 'ECONNRESET');
    });

    await t.test(`${name}: a server may speak first`, async () => {
      const near = dial(from, to.ipv4, target.port);
      const far = await target.accept();
      far.send('220 ready\r\n');
      assert.equal(await near.text(11), '220 ready\r\n');
      near.send('QUIT\r\n');
      assert.equal(await far.text(6), 'QUIT\r\n');
      far.finish();
      near.finish();
      await Promise.all([near.rest(), far.rest()]);
    });

    await t.test(`${name}: a client that sends and closes at once is heard`, async () => {
      const messages = Array.from({ length: 10 }, (_, index) => `message ${index}`);
      for (const message of messages) {
        const near = dial(from, to.ipv4, target.port);
        near.socket.end(message, () => near.socket.destroy());
      }
      const heard: string[] = [];
      for (const _ of messages) {
        const far = await target.accept();
        heard.push((await far.rest()).toString());
        far.socket.destroy();
      }
      assert.deepEqual(heard.sort(), messages);
    });

    await t.test(`${name}: a client that closes without a word ends the server's side`, async () => {
      const near = dial(from, to.ipv4, target.port);
      near.finish();
      const far = await target.accept();
      assert.equal((await far.rest()).length, 0);
      far.finish();
      assert.equal(await fate(near), 'fin');
    });
  }

  await t.test('the log says on which side a connection broke', async () => {
    const direct = 'Connection reset by peer (os error 104)';
    const through = 'stream reset by the peer: CONNECT_ERROR';
    for (const { who, inbound, outbound } of [
      { who: 'client', outbound: direct, inbound: through },
      { who: 'server', outbound: through, inbound: direct },
    ]) {
      const before = agent.here();
      const near = dial(captured, server.ipv4, 8080);
      near.send('?');
      const far = await atServer.accept();
      await far.text(1);
      (who === 'client' ? near : far).reset();
      await fate(who === 'client' ? far : near);
      for (const [direction, detail] of [
        ['inbound', inbound],
        ['outbound', outbound],
      ]) {
        const line = await agent.access(
          ({ field }) =>
            field('direction') === direction && field('error') === `broken on the ${who}'s side: ${detail}`,
          before,
        );
        assert.equal(line.level, 'error');
      }
    }
  });

  await t.test('a client that resets before the path is there leaves nothing behind', async () => {
    for (let i = 0; i < 20; i++) dial(captured, server.ipv4, 8080).reset();
    await agent.atRest();
  });
});

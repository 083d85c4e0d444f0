import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { ChannelLoop } from '../../native/channel.ts';
import { closeFd } from '../../native/netns.ts';
import { connectedPair, LOCAL, listenSomewhere, Side } from './side.ts';

for (const event of ['data', 'ended', 'drained', 'failed', 'connected', 'closed'] as const) {
  test(`a bug in ${event}() costs its own connection only`, async (t) => {
    const bugs: unknown[] = [];
    const loop = new ChannelLoop((bug) => bugs.push(bug));
    t.after(() => loop.stop());
    const neighbour = await connectedPair(loop);
    const { client, server } = await connectedPair(loop);
    const bug = new Error('bug');
    const told = Promise.withResolvers<void>();
    client[event] = () => {
      told.resolve();
      throw bug;
    };
    client.resume();
    server.resume();
    if (event === 'data') server.send('x');
    if (event === 'ended') loop.shutdown(server.channel);
    if (event === 'failed') loop.reset(server.channel);
    if (event === 'drained' || event === 'closed') {
      loop.pause(server.channel);
      client.send(Buffer.alloc(16 << 20));
      if (event === 'closed') loop.close(client.channel);
      else assert.ok(loop.flush(client.channel) > 0);
      server.resume();
    }
    if (event === 'connected') {
      // Nobody accepts, the kernel connects all the same.
      const { fd, port } = listenSomewhere();
      t.after(() => closeFd(fd));
      const other = new Side(loop);
      other.connected = client.connected;
      other.channel = loop.connect(-1, LOCAL, port, null, other);
      await other.told('failed INTERNAL: internal error');
      client.log.push('failed INTERNAL');
      loop.reset(client.channel);
    }
    await told.promise;
    if (event !== 'closed' && event !== 'failed') await client.told('failed INTERNAL');
    assert.deepEqual(bugs, [bug]);
    if (event === 'closed') await server.told('ended');
    else if (event !== 'failed') await server.told('failed ECONNRESET');
    loop.close(server.channel);
    neighbour.server.resume();
    neighbour.client.send('unharmed');
    await neighbour.server.until(() => neighbour.server.text === 'unharmed');
    assert.equal(loop.size, 2);
  });
}

test('an accepted connection that nobody takes is reset', async (t) => {
  const bugs: unknown[] = [];
  const loop = new ChannelLoop((bug) => bugs.push(bug));
  t.after(() => loop.stop());
  for (const how of ['ignores it', 'throws', 'throws after adopting it', 'closes it'] as const) {
    const { fd, port } = listenSomewhere();
    const listener = loop.listen(fd, false, {
      accepted({ channel }) {
        if (how === 'throws after adopting it') loop.adopt(channel, new Side(loop));
        if (how.startsWith('throws')) throw new Error(how);
        if (how === 'closes it') loop.close(channel);
      },
      failed: assert.fail,
    });
    const socket = connect({ host: LOCAL, port });
    const [error] = await once(socket, how === 'closes it' ? 'end' : 'error');
    if (how !== 'closes it') assert.equal((error as NodeJS.ErrnoException).code, 'ECONNRESET', how);
    socket.destroy();
    loop.closeListener(listener);
    assert.equal(loop.size, 0);
  }
  assert.deepEqual(
    bugs.map((bug) => (bug as Error).message),
    ['throws', 'throws after adopting it'],
  );
});

test('what onBug itself throws is an uncaught exception, and the loop goes on', async (t) => {
  const loop = new ChannelLoop((bug) => {
    throw bug;
  });
  t.after(() => loop.stop());
  const { client, server } = await connectedPair(loop);
  const bug = new Error('bug');
  server.on = () => {
    throw bug;
  };
  const uncaught = new Promise((resolve) => process.setUncaughtExceptionCaptureCallback(resolve));
  t.after(() => process.setUncaughtExceptionCaptureCallback(null));
  server.resume();
  client.send('x');
  assert.equal(await uncaught, bug);
  const other = await connectedPair(loop);
  other.server.resume();
  other.client.send('alive');
  await other.server.until(() => other.server.text === 'alive');
  loop.reset(server.channel);
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type Accepted, type ChannelHandler, ChannelLoop, NO_HANDLER, NO_LIMIT } from '../../native/channel.ts';
import { listenTcp, OWN_NETNS } from '../../native/netns.ts';
import { freePort } from '../support/free-ports.ts';
import { plainListener } from '../support/tcp.ts';

const LOCALHOST = '127.0.0.1';

const silent: ChannelHandler = { ...NO_HANDLER, data: () => NO_LIMIT };

function loopOf(t: TestContext, onBug: (error: unknown) => void = (error) => assert.fail(String(error))): ChannelLoop {
  const loop = new ChannelLoop(onBug);
  t.after(() => loop.stop());
  return loop;
}

/** A listener of the loop, and a client that has connected to it. */
async function acceptWith(t: TestContext, loop: ChannelLoop, accepted: (accepted: Accepted) => void): Promise<Socket> {
  const port = await freePort();
  const { fd } = listenTcp(OWN_NETNS, LOCALHOST, port, plainListener);
  loop.listen(fd, false, { accepted, failed: (error) => assert.fail(error.message) });
  const socket = connect(port, LOCALHOST);
  t.after(() => socket.destroy());
  return socket;
}

test('closing no channel at all keeps the first one hearing', async (t) => {
  const loop = loopOf(t);
  const heard = Promise.withResolvers<number>();
  const client = await acceptWith(t, loop, ({ channel }) => {
    loop.adopt(channel, {
      ...silent,
      data(_, length) {
        heard.resolve(length);
        return NO_LIMIT;
      },
    });
    loop.close(0);
    loop.reset(0);
    loop.resume(channel, NO_LIMIT);
  });
  client.write('hello');
  assert.equal(await heard.promise, 5);
});

test('an error while a connection is accepted resets it and tells its handler', async (t) => {
  const bugs: unknown[] = [];
  const loop = loopOf(t, (error) => bugs.push(error));
  const failed = Promise.withResolvers<string>();
  const client = await acceptWith(t, loop, ({ channel }) => {
    loop.adopt(channel, { ...silent, failed: ({ code }) => failed.resolve(code) });
    throw new Error('a bug');
  });
  const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNRESET');
  assert.equal(await failed.promise, 'INTERNAL');
  assert.equal(String(bugs), 'Error: a bug');
  assert.equal(loop.size, 0);
});

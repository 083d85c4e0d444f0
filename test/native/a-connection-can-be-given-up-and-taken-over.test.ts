import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { type ChannelHandler, NO_HANDLER, NO_LIMIT } from '../../native/channel.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { listenSomewhere, testLoop } from './side.ts';

const silent: ChannelHandler = { ...NO_HANDLER, data: () => NO_LIMIT };

test('a connection that was given up is served under its descriptor, with what had arrived before', async (t) => {
  const loop = testLoop(t);
  const before = openDescriptors();
  const { fd, port } = listenSomewhere();
  const listener = loop.listen(fd, false, {
    accepted({ channel, peerPort }) {
      assert.equal(loop.localPort(channel), port);
      const moved = loop.detach(channel);
      assert.ok(moved > 0);
      assert.equal(loop.detach(channel), -1, 'it is gone');
      assert.equal(loop.size, 0);
      const id = loop.attach(moved, {
        ...silent,
        data(offset, length) {
          loop.write(id, offset, length);
          return NO_LIMIT;
        },
        ended: () => void loop.close(id),
      });
      assert.ok(peerPort > 0);
      loop.resume(id, NO_LIMIT);
    },
    failed: (error) => assert.fail(error.message),
  });
  const client = connect(port, '127.0.0.1');
  client.write('sent before anybody accepted');
  const [answer] = await once(client, 'data');
  assert.equal(String(answer), 'sent before anybody accepted');
  client.end();
  await once(client, 'close');
  loop.closeListener(listener);
  assert.equal(loop.size, 0);
  assertNothingOpened(before);
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { type ChannelHandler, NO_LIMIT } from '../../native/channel.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { listenSomewhere, testLoop } from './side.ts';

const silent: ChannelHandler = {
  data: () => NO_LIMIT,
  connected() {},
  secured() {},
  ended() {},
  drained() {},
  failed() {},
  closed() {},
};

test('a connection that one loop accepted and gave up is served by another, with what had arrived before', async (t) => {
  const first = testLoop(t);
  const second = testLoop(t);
  const before = openDescriptors();
  const { fd, port } = listenSomewhere();
  const listener = first.listen(fd, false, {
    accepted({ channel, peerPort }) {
      assert.equal(first.localPort(channel), port);
      const moved = first.detach(channel);
      assert.ok(moved > 0);
      assert.equal(first.detach(channel), -1, 'it is gone');
      assert.equal(first.size, 0);
      const id = second.attach(moved, {
        ...silent,
        data(offset, length) {
          second.write(id, offset, length);
          return NO_LIMIT;
        },
        ended: () => void second.close(id),
      });
      assert.ok(peerPort > 0);
      second.resume(id, NO_LIMIT);
    },
    failed: (error) => assert.fail(error.message),
  });
  const client = connect(port, '127.0.0.1');
  client.write('sent before anybody accepted');
  const [answer] = await once(client, 'data');
  assert.equal(String(answer), 'sent before anybody accepted');
  client.end();
  await once(client, 'close');
  first.closeListener(listener);
  assert.equal(second.size, 0);
  assertNothingOpened(before);
});

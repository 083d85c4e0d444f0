import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ChannelId } from '../../native/channel.ts';
import { connectedPair, nextTurns, Side, testLoop } from './side.ts';

test('calls on a closed channel do nothing to the one that has its place now', async (t) => {
  const loop = testLoop(t);
  const past: ChannelId[] = [];
  // Places rest before they are used again: enough connections for each to have had several owners.
  for (let i = 0; i < 1500; i++) {
    const { client, server } = await connectedPair(loop);
    past.push(client.channel, server.channel);
    loop.close(client.channel);
    loop.reset(server.channel);
    await nextTurns();
  }
  assert.equal(new Set(past).size, past.length, 'an id was used twice');
  const { client, server } = await connectedPair(loop);
  for (const id of past) {
    assert.equal(loop.close(id), true);
    loop.reset(id);
    loop.adopt(id, new Side(loop));
    loop.resume(id, 1);
    loop.pause(id);
    loop.shutdown(id);
    assert.equal(loop.write(id, 0, 1), -1);
    assert.equal(loop.writeFrame(id, 1, 0, 9, 1), -1);
    assert.equal(loop.flush(id), -1);
    assert.equal(loop.peer(id), null);
    assert.equal(loop.tcpInfo(id), null);
    assert.throws(() => loop.startTls(id, 0, 'client', [], ''), { code: 'TLS' });
  }
  client.resume();
  server.resume();
  client.send('still ');
  server.send('here');
  await server.until(() => server.text === 'still ');
  await client.until(() => client.text === 'here');
  assert.equal(loop.size, 2);
});

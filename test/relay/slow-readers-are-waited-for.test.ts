import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { FrameFlag, FrameType } from '../../src/hbone/frames.ts';
import { frame } from '../hbone/connection/support/connection-under-test.ts';
import { plainRelayUnderTest, tunnelRelayUnderTest, until } from './support/relay-under-test.ts';

const { DATA, WINDOW_UPDATE } = FrameType;
const { END_STREAM } = FrameFlag;
const CHUNK = 16_384;

/** A stream whose window is used up because its application does not read. Returns the bytes that were sent on it. */
async function stalled(t: TestContext) {
  const under = await tunnelRelayUnderTest(t);
  const { tunnel, stream } = under;
  let sent = 0;
  // Credit stops coming once the buffers of the kernel are full.
  for (let idle = 0; idle < 20; ) {
    if (stream.receiveWindow >= CHUNK) {
      tunnel.receive(frame(DATA, 0, 1, Buffer.alloc(CHUNK, 'b')));
      sent += CHUNK;
      idle = 0;
    } else {
      idle++;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
  return { ...under, sent };
}

test('credit comes back only for what the application has taken', async (t) => {
  const { app, tunnel, stream, sent } = await stalled(t);
  tunnel.frames();
  assert.ok(stream.receiveWindow < CHUNK);
  app.read();
  await until('the application has everything', () => app.length === sent);
  const updates = tunnel.frames().filter(({ type, streamId }) => type === WINDOW_UPDATE && streamId === 1);
  assert.ok(updates.length > 0);
  assert.ok(stream.receiveWindow > stream.windowSize / 2);
});

test('a connection that both sides have ended is live until the slow one has read everything', async (t) => {
  const { app, tunnel, owner, loop, sent } = await stalled(t);
  app.socket.end();
  tunnel.receive(frame(DATA, END_STREAM, 1));
  await until('the application’s end has come', () => tunnel.connection.streamCount === 0);
  assert.equal(owner.end, null);
  assert.equal(loop.size, 1);
  app.read();
  await until('everything has been read', () => app.length === sent && app.end === 'fin');
  await until('the relay has ended', () => owner.end !== null);
  assert.deepEqual(owner.end, { kind: 'complete' });
  assert.equal(owner.ends, 1);
  assert.equal(loop.size, 0);
});

test('a connection that only waits for its slow reader can still be cut', async (t) => {
  const { app, tunnel, relay, owner, loop } = await stalled(t);
  app.socket.end();
  tunnel.receive(frame(DATA, END_STREAM, 1));
  await until('the application’s end has come', () => tunnel.connection.streamCount === 0);
  relay.cut();
  assert.equal(loop.size, 0);
  app.read();
  await until('the application sees a reset', () => app.end === 'reset');
  // Who cuts says so himself.
  assert.equal(owner.ends, 0);
});

for (const ending of ['read', 'cut'] as const) {
  test(`the same without a tunnel: ${ending}`, async (t) => {
    const { client, server, relay, owner, loop } = await plainRelayUnderTest(t);
    const bytes = 24 * 1024 * 1024;
    server.socket.end(Buffer.alloc(bytes, 'b'));
    server.read();
    client.socket.end();
    await until('the server sees the end of the client', () => server.end === 'fin');
    // Reads stop while the client does not take what was read, so both have ended only after most of it.
    assert.equal(owner.end, null);
    if (ending === 'read') {
      client.read();
      await until('everything has been read', () => client.length === bytes && client.end === 'fin');
      await until('the relay has ended', () => owner.end !== null);
      assert.deepEqual([owner.end, owner.ends], [{ kind: 'complete' }, 1]);
    } else {
      relay.cut();
      client.read();
      await until('both see a reset', () => client.end === 'reset');
    }
    assert.equal(loop.size, 0);
  });
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType, SettingId } from '../../src/hbone/frames.ts';
import { ErrorCode } from '../../src/hbone/http-error.ts';
import { frame, words } from '../hbone/connection/support/connection-under-test.ts';
import { tunnelRelayUnderTest, until } from './support/relay-under-test.ts';

const { DATA, RST_STREAM, WINDOW_UPDATE } = FrameType;
const { END_STREAM } = FrameFlag;

function total(said: readonly string[]): number {
  return said.reduce((sum, text) => sum + Number(/^DATA 1 \((\d+)\)/.exec(text)?.[1] ?? 0), 0);
}

for (const first of ['application', 'peer'] as const) {
  test(`bytes go both ways, and the ${first} may end first`, async (t) => {
    const { app, tunnel, owner } = await tunnelRelayUnderTest(t);
    app.read();
    const said: string[] = [];
    const says = async (text: string) => {
      await until(text, () => said.push(...tunnel.said()) > 0 && said.includes(text));
    };
    app.socket.write('hello');
    await says('DATA 1 (5)');
    tunnel.receive(frame(DATA, 0, 1, Buffer.from('world')));
    await until('the application has it', () => app.text === 'world');
    if (first === 'application') {
      app.socket.end();
      await says('DATA 1 (0) END');
      tunnel.receive(frame(DATA, END_STREAM, 1, Buffer.from('!')));
    } else {
      tunnel.receive(frame(DATA, END_STREAM, 1, Buffer.from('!')));
      await until('the application sees the end', () => app.end === 'fin');
      app.socket.write('more');
      await says('DATA 1 (4)');
      app.socket.end();
      await says('DATA 1 (0) END');
    }
    await until('both have ended', () => owner.end !== null && app.end === 'fin');
    assert.deepEqual(owner.end, { kind: 'complete' });
    assert.equal(app.text, 'world!');
    assert.deepEqual([owner.receivedBytes, owner.sentBytes], [first === 'application' ? 5 : 9, 6]);
    assert.equal(tunnel.connection.streamCount, 0);
  });
}

test('RFC 9113 §8.5: a reset of the application becomes RST_STREAM(CONNECT_ERROR)', async (t) => {
  const { app, tunnel, owner } = await tunnelRelayUnderTest(t);
  app.socket.resetAndDestroy();
  const said: string[] = [];
  await until('a reset', () => said.push(...tunnel.said()) > 0);
  assert.deepEqual(said, ['RST_STREAM 1 CONNECT_ERROR']);
  assert.equal(owner.end?.kind, 'broken');
  assert.equal(owner.ends, 1);
});

for (const code of ['CONNECT_ERROR', 'CANCEL', 'NO_ERROR'] as const) {
  test(`RFC 9113 §8.5: RST_STREAM(${code}) becomes a reset of the application`, async (t) => {
    const { app, tunnel, owner, loop } = await tunnelRelayUnderTest(t);
    app.read();
    tunnel.receive(frame(RST_STREAM, 0, 1, words(ErrorCode[code])));
    await until('the application sees a reset', () => app.end === 'reset');
    assert.equal(owner.end?.kind, 'broken');
    assert.equal(loop.size, 0);
  });
}

test('RFC 9113 §8.1: NO_ERROR after the end of the stream is an orderly end', async (t) => {
  const { app, tunnel, owner } = await tunnelRelayUnderTest(t);
  app.read();
  tunnel.receive(frame(DATA, END_STREAM, 1, Buffer.from('bye')), frame(RST_STREAM, 0, 1, words(ErrorCode.NO_ERROR)));
  await until('the end', () => app.end === 'fin');
  assert.equal(app.text, 'bye');
  assert.deepEqual(owner.end, { kind: 'complete' });
});

test('the end of a tunnel resets the application', async (t) => {
  const { app, tunnel, owner } = await tunnelRelayUnderTest(t);
  app.read();
  tunnel.connection.lost('the peer closed the tunnel');
  await until('the application sees a reset', () => app.end === 'reset');
  assert.deepEqual(owner.end, { kind: 'broken', side: 'server', detail: 'the peer closed the tunnel' });
});

test('RFC 9113 §6.9: an application is read only as far as the windows go, and its end comes after its last byte', async (t) => {
  const { app, tunnel } = await tunnelRelayUnderTest(t, [[SettingId.INITIAL_WINDOW_SIZE, 1000]]);
  tunnel.receive(frame(WINDOW_UPDATE, 0, 0, words(1_000_000)));
  app.socket.end(Buffer.alloc(100_000, 'a'));
  const said: string[] = [];
  const sees = (bytes: number) =>
    until(`${bytes} bytes`, () => said.push(...tunnel.said()) > 0 && total(said) === bytes);
  await sees(1000);
  tunnel.receive(frame(WINDOW_UPDATE, 0, 1, words(50_000)));
  await sees(51_000);
  assert.ok(!said.includes('DATA 1 (0) END'));
  tunnel.receive(frame(WINDOW_UPDATE, 0, 1, words(1_000_000)));
  await until('the end', () => said.push(...tunnel.said()) > 0 && said.includes('DATA 1 (0) END'));
  assert.equal(total(said), 100_000);
  assert.equal(said.at(-1), 'DATA 1 (0) END');
});

test('RFC 9113 §6.9: what was read when a sibling had used up the shared window waits, in order', async (t) => {
  const { app, tunnel } = await tunnelRelayUnderTest(t, [[SettingId.INITIAL_WINDOW_SIZE, 10_000_000]]);
  const sibling = tunnel.open();
  // The relay has asked for as much as the window of the connection was; now it is the sibling's.
  tunnel.send(sibling.stream, 65_535);
  tunnel.frames();
  const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, i) => i % 251));
  app.socket.end(bytes);
  const received: Buffer[] = [];
  let ended = false;
  for (let credit = 0; !ended; credit += 1000) {
    tunnel.receive(frame(WINDOW_UPDATE, 0, 0, words(1000)));
    await new Promise((resolve) => setImmediate(resolve));
    for (const { type, flags, streamId, payload } of tunnel.frames()) {
      if (type !== DATA || streamId !== 1) continue;
      received.push(payload);
      ended ||= (flags & END_STREAM) !== 0;
    }
    assert.ok(credit < 1_000_000, 'it does not end');
  }
  assert.ok(Buffer.concat(received).equals(bytes));
});

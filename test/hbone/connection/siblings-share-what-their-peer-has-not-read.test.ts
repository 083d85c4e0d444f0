/** Peers that return the credit of the connection only for what has been read: most implementations but culvert. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { ConnectionUnderTest, connectFrame, describe, frame, words } from './support/connection-under-test.ts';

const KB = 1024;
const MB = 1024 * KB;

/** Seconds go by in which nothing comes from the peer. */
function wait(client: ConnectionUnderTest, seconds: number): void {
  for (let i = 0; i < seconds; i++) {
    client.now += 1000;
    client.connection.keepAlive(1_000_000, 1_000_000);
  }
}

/** A stream with more to send than there is window. Returns it with what it has sent so far. */
function sending(client: ConnectionUnderTest) {
  const { stream, recorder } = client.open();
  const upload = { stream, sent: 0 };
  const send = () => {
    for (let now = -1; now !== 0; upload.sent += now) now = client.send(stream, 1_000_000);
  };
  recorder.onWritable = send;
  send();
  return upload;
}

test('RFC 9113 §6.9.1: a stream that the peer does not read leaves half of the connection window to its siblings', () => {
  const client = new ConnectionUnderTest('client').established();
  const stalled = sending(client);
  assert.equal(stalled.sent, 32_768);
  const sibling = sending(client);
  assert.equal(sibling.sent, 32_767);
  // What the sibling’s reader takes comes back on both, once it is half a window as nghttp2 has it.
  for (let i = 1; i < 10; i++) {
    client.receive(
      frame(FrameType.WINDOW_UPDATE, 0, sibling.stream.id, words(32_767)),
      frame(FrameType.WINDOW_UPDATE, 0, 0, words(32_767)),
    );
    assert.equal(sibling.sent, (i + 1) * 32_767);
  }
  wait(client, 100);
  assert.equal(stalled.sent, 32_768);
});

test('a peer that returns credit only for more than half of a window gets whole windows', () => {
  const client = new ConnectionUnderTest('client').established();
  // A window that grows before anything was sent is no credit.
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, client.open().stream.id, words(1000)));
  const upload = sending(client);
  assert.equal(upload.sent, 32_768);
  wait(client, 5);
  assert.equal(upload.sent, 65_535);
  client.receive(
    frame(FrameType.WINDOW_UPDATE, 0, upload.stream.id, words(65_535)),
    frame(FrameType.WINDOW_UPDATE, 0, 0, words(65_535)),
  );
  assert.equal(upload.sent, 2 * 65_535);
});

/** The windows of a ztunnel: 4 MB per stream, 16 MB for all. */
function wideWindows(): ConnectionUnderTest {
  const client = new ConnectionUnderTest('client').established([[4, 4 * MB]]);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(16 * MB - 65_535)));
  return client;
}

for (const order of ['one after the other', 'in turns']) {
  test(`streams that stall ${order}, on a quiet connection, leave a quarter of its window to their siblings`, () => {
    const client = wideWindows();
    const sibling = client.open();
    client.send(sibling.stream, 1000);
    const most = order === 'in turns' ? 100_000 : 16 * MB;
    const stalled = Array.from({ length: 4 }, () => client.open());
    let moved = true;
    const sendInTurns = () => {
      for (moved = true; moved; ) {
        moved = false;
        for (const { stream } of stalled) if (client.send(stream, most) > 0) moved = true;
      }
    };
    sendInTurns();
    for (let second = 0; second < 100; second++) {
      wait(client, 1);
      sendInTurns();
    }
    // A stream may always use half of its own window.
    const left = client.connection.sendWindow;
    assert.ok(left > 2 * MB && left <= 4 * MB, `${left}`);
    assert.equal(client.send(sibling.stream, 1 * MB), 1 * MB);
  });
}

test('credit that comes early for another stream, or for the connection, keeps stalled streams to half of it', () => {
  for (const credited of ['stream', 'connection', 'nothing']) {
    const client = wideWindows();
    const sibling = client.open();
    client.send(sibling.stream, 10_000);
    const credit = frame(FrameType.WINDOW_UPDATE, 0, credited === 'stream' ? sibling.stream.id : 0, words(10_000));
    if (credited !== 'nothing') client.receive(credit);
    const stalled = Array.from({ length: 3 }, () => sending(client));
    wait(client, 100);
    // The half of its own window that any stream may use is what the third one has.
    assert.equal(stalled[2]!.sent > 2 * MB + 10_000, credited === 'nothing');
  }
});

test('the guess that a peer returns credit late is taken back when it does not', () => {
  const client = wideWindows();
  const sibling = client.open();
  const early = Array.from({ length: 3 }, () => sending(client));
  wait(client, 10);
  assert.equal(early[2]!.sent, 4 * MB);
  client.send(sibling.stream, 10_000);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, sibling.stream.id, words(10_000)));
  for (const { stream } of early) stream.reset(8);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(12 * MB + 10_000)));
  const late = Array.from({ length: 3 }, () => sending(client));
  wait(client, 10);
  assert.equal(late[2]!.sent, 2 * MB);
});

const ENOUGH = 5 * 65_535;

/** A peer whose readers take everything, and that returns credit once a window is down to a share of its size. */
function lateReader(
  windows: { stream: number; connection: number },
  share: { stream: number; connection: number },
  part: number,
) {
  const client = new ConnectionUnderTest('client').established([[4, windows.stream]]);
  if (windows.connection > 65_535)
    client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(windows.connection - 65_535)));
  const uploads = Array.from({ length: 3 }, () => sending(client));
  const returned = new Map<number, number>();
  const giveBack = (id: number, sent: number) => {
    for (let left = sent - (returned.get(id) ?? 0); left > 0; left -= part)
      client.receive(frame(FrameType.WINDOW_UPDATE, 0, id, words(Math.min(left, part))));
    returned.set(id, sent);
  };
  for (let second = 0; second < 300 && uploads.some(({ sent }) => sent < ENOUGH); second++) {
    wait(client, 1);
    for (const { stream, sent } of uploads)
      if (stream.sendWindow <= share.stream * windows.stream) giveBack(stream.id, sent);
    if (client.connection.sendWindow > share.connection * windows.connection) continue;
    giveBack(
      0,
      uploads.reduce((sum, { sent }) => sum + sent, 0),
    );
  }
  return uploads.map(({ sent }) => sent);
}

test('a peer that returns credit late gets on, at once or in parts, with several streams', () => {
  const sizes = [10_000, 40_000, 65_535, 200_000, 1_000_000];
  const shares = [0, 0.2, 0.5, 0.9];
  for (const part of [1_000_000, 16_384, 1000])
    for (const stream of sizes)
      for (const connection of [65_535, 200_000])
        for (const ofStream of shares)
          for (const ofConnection of shares) {
            const windows = { stream, connection };
            const sent = lateReader(windows, { stream: ofStream, connection: ofConnection }, part);
            const what = `${sent} with ${JSON.stringify({ windows, ofStream, ofConnection, part })}`;
            for (const bytes of sent) assert.ok(bytes >= ENOUGH, what);
          }
});

test('a stream that its peer has not read for a minute counts as stalled, also when its share holds it back', () => {
  const client = new ConnectionUnderTest('client').established();
  const read = sending(client);
  client.receive(
    frame(FrameType.WINDOW_UPDATE, 0, read.stream.id, words(32_768)),
    frame(FrameType.WINDOW_UPDATE, 0, 0, words(32_768)),
  );
  wait(client, 59);
  assert.equal(read.stream.sendWindow, 32_767);
  assert.deepEqual(client.breaches, []);
  wait(client, 100);
  assert.deepEqual(client.breaches, ['window-stall']);
});

test('a stream may use all of its window as long as it is no more than half of the connection’s', () => {
  const client = new ConnectionUnderTest('client').established([[4, 100_000]]);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(400_000 - 65_535)));
  assert.deepEqual(
    Array.from({ length: 5 }, () => sending(client).sent),
    [100_000, 100_000, 50_000, 50_000, 50_000],
  );
});

test('a tunnel has no room while stalled streams hold its window, and has room again when it comes back', () => {
  const client = new ConnectionUnderTest('client').established();
  for (let i = 0; i < 3; i++) sending(client);
  assert.equal(client.connection.sendWindow, 0);
  // A busy tunnel looks like that for moments.
  wait(client, 1);
  assert.ok(client.connection.room > 0);
  wait(client, 2);
  assert.equal(client.connection.room, 0);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(32_768)));
  assert.ok(client.connection.room > 0);
});

test('a tunnel has no room while stalled streams hold most of its window, also when a sibling gets credit', () => {
  const client = wideWindows();
  const sibling = client.open();
  const busyFor = (seconds: number) => {
    for (let i = 0; i < seconds; i++) {
      client.send(sibling.stream, 10_000);
      const returned = words(10_000);
      client.receive(
        frame(FrameType.WINDOW_UPDATE, 0, sibling.stream.id, returned),
        frame(FrameType.WINDOW_UPDATE, 0, 0, returned),
      );
      wait(client, 1);
    }
  };
  busyFor(3);
  const stalled = Array.from({ length: 7 }, () => sending(client));
  busyFor(3);
  assert.equal(client.connection.room, 0);
  const [{ stream, sent }] = stalled as [ReturnType<typeof sending>];
  stream.reset(8);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(sent)));
  assert.ok(client.connection.room > 0);
});

/** A server whose client has asked for three downloads and reads none of them, so that the window is used up. */
function starvedServer(): ConnectionUnderTest {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1), connectFrame(3), connectFrame(5));
  for (const { stream } of server.requests) {
    stream.respond([[':status', '200']], false);
    server.send(stream, 1_000_000);
  }
  assert.equal(server.connection.sendWindow, 0);
  server.frames();
  return server;
}

test('RFC 9113 §6.8: a server that stalled streams leave nothing to send has its client open another connection', () => {
  const server = starvedServer();
  wait(server, 10);
  assert.deepEqual(server.said(), []);
  wait(server, 1);
  const frames = server.frames();
  assert.deepEqual(frames.map(describe), ['GOAWAY NO_ERROR (last 2147483647)', 'PING']);
  // What crosses that is served, what is open goes on.
  server.receive(connectFrame(7), frame(FrameType.PING, FrameFlag.ACK, 0, frames[1]!.payload));
  assert.equal(server.requests.length, 4);
  server.receive(
    frame(FrameType.WINDOW_UPDATE, 0, 1, words(65_535)),
    frame(FrameType.WINDOW_UPDATE, 0, 0, words(100_000)),
  );
  assert.ok(server.send(server.requests[3]!.stream, 1000) > 0);
  assert.equal(server.closed, undefined);
});

test('a server goes on with a window that came back in time, or that a single stream has used half of', () => {
  const server = starvedServer();
  wait(server, 9);
  server.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(32_768)));
  wait(server, 100);
  const other = new ConnectionUnderTest('server').established();
  other.receive(connectFrame(1));
  other.requests[0]!.stream.respond([[':status', '200']], false);
  other.send(other.requests[0]!.stream, 1_000_000);
  wait(other, 100);
  for (const { connection } of [server, other]) assert.ok(connection.accepting);
});

test('half of the largest window there is can be sent at once', () => {
  const client = new ConnectionUnderTest('client').established([[4, 0x7fff_ffff]]);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(0x7fff_ffff - 65_535)));
  const { stream } = client.open();
  assert.equal(stream.sendable(), 0x4000_0000);
});

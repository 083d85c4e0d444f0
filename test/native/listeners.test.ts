import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'node:test';
import type { Accepted } from '../../native/channel.ts';
import { closeFd, connectTcp, OWN_NETNS } from '../../native/netns.ts';
import { acceptSides, assertLog, connectSide, LOCAL, listenSomewhere, nextTurns, Side, testLoop } from './side.ts';

test('an accepted connection comes with both addresses', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Accepted>();
  const { port } = acceptSides(loop, (_, connection) => accepted.resolve(connection));
  const socket = connect({ host: LOCAL, port });
  await once(socket, 'connect');
  const { channel, ...addresses } = await accepted.promise;
  assert.ok(channel > 0);
  assert.deepEqual(addresses, {
    peerIp: LOCAL,
    peerPort: socket.localPort,
    destinationIp: LOCAL,
    destinationPort: port,
    original: false,
  });
  const info = loop.tcpInfo(channel)!;
  const ESTABLISHED = 1;
  assert.equal(info.state, ESTABLISHED);
  assert.ok(info.rttMicros > 0 && info.congestionWindow > 0);
  socket.destroy();
});

test('a listener that is closed accepts no more, its neighbours do', async (t) => {
  const loop = testLoop(t);
  const first = acceptSides(loop, (side) => {
    side.resume();
    // From inside its own event, with more connections waiting.
    first.close();
  });
  const second = acceptSides(loop, (side) => side.resume());
  const clients = Array.from({ length: 5 }, () => connectSide(loop, first.port));
  for (const client of clients) client.resume();
  await Promise.all(clients.slice(1).map((client) => client.told('failed ECONNRESET')));
  assertLog(clients[0]!, ['connected']);
  await connectSide(loop, second.port).told('connected');
  const refused = connectSide(loop, first.port);
  await refused.told('failed ECONNREFUSED');
  // Its place is taken by another.
  const third = acceptSides(loop, (side) => side.resume());
  await connectSide(loop, third.port).told('connected');
});

test('a burst of connections is accepted in portions, and established ones are served meanwhile', async (t) => {
  const loop = testLoop(t);
  const sides: Side[] = [];
  const { port } = acceptSides(loop, (side) => {
    sides.push(side);
    side.resume();
  });
  const clients = Array.from({ length: 500 }, () => connectSide(loop, port));
  await Promise.all(clients.map((client) => client.told('connected')));
  for (const [at, client] of clients.entries()) client.send(`${at}`);
  for (const client of clients) loop.shutdown(client.channel);
  while (sides.length < clients.length) await nextTurns();
  await Promise.all(sides.map((side) => side.told('ended')));
  assert.deepEqual(
    sides.map(({ text }) => Number(text)).sort((a, b) => a - b),
    clients.map((_, at) => at),
  );
});

test('a descriptor that cannot be watched is refused', (t) => {
  const loop = testLoop(t);
  assert.throws(() => loop.listen(9999, false, { accepted() {}, failed() {} }), { code: 'EBADF' });
  assert.throws(() => loop.attach(9999, new Side(loop)), { code: 'EPOLL' });
  // One is enough.
  const { fd } = listenSomewhere();
  loop.listen(fd, false, { accepted() {}, failed() {} });
  assert.throws(() => loop.listen(fd, false, { accepted() {}, failed() {} }), { code: 'EEXIST' });
  assert.equal(loop.size, 0);
});

test('without descriptors the listener rests, and goes on when it is resumed', async (t) => {
  const loop = testLoop(t);
  const sides: Side[] = [];
  const failed = Promise.withResolvers<string>();
  const { fd, port } = listenSomewhere();
  let failures = 0;
  loop.listen(fd, false, {
    accepted({ channel }) {
      const side = new Side(loop);
      side.channel = channel;
      loop.adopt(channel, side);
      sides.push(side);
    },
    failed(error, listener) {
      failures++;
      assert.equal(listener, 0);
      failed.resolve(error.code);
    },
  });
  // The kernel connects it, there and then.
  const client = connectTcp(OWN_NETNS, LOCAL, port, null, { mark: 0, keepalive: null, userTimeoutMs: 0 }).fd;
  const opened = exhaustDescriptors();
  try {
    assert.equal(await failed.promise, 'EMFILE');
    await nextTurns();
    assert.equal(failures, 1);
  } finally {
    for (const each of opened) closeSync(each);
  }
  assert.equal(sides.length, 0);
  loop.resumeListener(0);
  while (sides.length === 0) await nextTurns();
  sides[0]!.resume();
  closeFd(client);
  await sides[0]!.told('ended');
});

/** Opens as many files as this process may, after making that few. */
function exhaustDescriptors(): number[] {
  const { status, stderr } = spawnSync('prlimit', ['--pid', `${process.pid}`, '--nofile=200:']);
  assert.equal(status, 0, String(stderr));
  const opened: number[] = [];
  try {
    for (;;) opened.push(openSync('/dev/null', 'r'));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'EMFILE');
  }
  return opened;
}

test('closing a listener that never accepted leaves its descriptor closed', (t) => {
  const loop = testLoop(t);
  const { fd } = listenSomewhere();
  const listener = loop.listen(fd, false, { accepted() {}, failed() {} });
  loop.closeListener(listener);
  assert.throws(() => closeFd(fd), { code: 'EBADF' });
  loop.closeListener(listener);
});

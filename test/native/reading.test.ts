import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { NO_HANDLER, NO_LIMIT } from '../../native/channel.ts';
import { acceptSides, connectedPair, nextTurns, pattern, type Side, testLoop } from './side.ts';
import { urgentSender } from './urgent-sender.ts';

test('a read brings no more than its limit, and everything arrives', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  const length = 1 << 20;
  // Whatever was returned last holds for the next read: 1, 2, 3 … bytes, powers of two, more than the slab.
  const limits: number[] = [1];
  server.on = () => {
    const next = limits.length < 100 ? limits.length : limits.length < 120 ? 1 << (limits.length - 100) : NO_LIMIT;
    limits.push(next);
    return next;
  };
  client.send(pattern(length));
  loop.shutdown(client.channel);
  loop.resume(server.channel, 1);
  await server.told('ended');
  assert.deepEqual(server.received, pattern(length));
  for (const [at, read] of server.reads.entries())
    assert.ok(read <= limits[at]!, `read ${at}: ${read} > ${limits[at]}`);
  assert.deepEqual(server.reads.slice(0, 100), limits.slice(0, 100));
  assert.ok(Math.max(...server.reads) <= loop.slabSize);
});

test('a paused channel reads nothing until it is resumed, wherever that happens', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  server.limit = 0;
  server.resume(10);
  client.send(pattern(1000));
  await server.until(() => server.reads.length === 1);
  await nextTurns();
  assert.deepEqual(server.reads, [10]);
  // From a timer's phase, from a promise, from another channel's event, and from its own data (where the result counts).
  const ways: ((then: () => void) => void)[] = [
    setImmediate,
    queueMicrotask,
    (then) => setTimeout(then, 1),
    (then) => {
      void connectedPair(loop).then((other) => {
        other.server.on = then;
        other.server.resume();
        other.client.send('x');
      });
    },
  ];
  for (const [at, later] of ways.entries()) {
    later(() => server.resume(10));
    await server.until(() => server.reads.length === at + 2);
    await nextTurns();
    assert.equal(server.reads.length, at + 2);
  }
  server.on = () => {
    loop.resume(server.channel, 500);
    return server.reads.length < 10 ? 20 : 0;
  };
  server.resume(20);
  await server.until(() => server.reads.length === 10);
  await nextTurns();
  assert.deepEqual(server.reads.slice(5), [20, 20, 20, 20, 20]);
  // Resumed and paused again before the loop looked.
  loop.resume(server.channel, 20);
  loop.pause(server.channel);
  await nextTurns();
  assert.equal(server.reads.length, 10);
  server.on = () => undefined;
  server.limit = NO_LIMIT;
  server.resume();
  await server.until(() => server.receivedLength === 1000);
  assert.deepEqual(server.received, pattern(1000));
});

test('what is given back is read again, in front of what follows and of the end', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  const length = 1 << 20;
  const taken: Buffer[] = [];
  let total = 0;
  let at = 0;
  // Portions and limits of all sizes; every third read is followed by a pause.
  loop.adopt(server.channel, {
    ...NO_HANDLER,
    data(offset, read) {
      at++;
      const part = Math.min(read, at % 5 === 0 ? 0 : 1 << (at % 17));
      taken.push(Buffer.from(loop.memory.slice(offset, offset + part)));
      total += part;
      loop.unread(server.channel, offset + part, read - part);
      const limit = 1 + ((at * 7919) % 200_000);
      if (at % 3 > 0) return limit;
      setImmediate(() => loop.resume(server.channel, limit));
      return 0;
    },
    ended: () => server.ended(),
  });
  client.send(pattern(length));
  loop.shutdown(client.channel);
  loop.resume(server.channel, NO_LIMIT);
  await server.told('ended');
  assert.equal(total, length);
  assert.deepEqual(Buffer.concat(taken), pattern(length));
});

test('what is given back does not outlive its connection', async (t) => {
  const loop = testLoop(t);
  for (const end of ['close', 'reset'] as const) {
    const { client, server } = await connectedPair(loop);
    const read = Promise.withResolvers<void>();
    loop.adopt(server.channel, {
      ...NO_HANDLER,
      data(offset, length) {
        loop.unread(server.channel, offset, length);
        read.resolve();
        return 0;
      },
    });
    client.send(pattern(100_000));
    client.resume();
    loop.resume(server.channel, NO_LIMIT);
    await read.promise;
    loop[end](server.channel);
    await client.until(() => client.log.length > 0);
    loop.reset(client.channel);
  }
  await nextTurns();
  assert.equal(loop.size, 0);
});

test('a channel that is always readable does not keep the others waiting', async (t) => {
  const loop = testLoop(t);
  const busy = await connectedPair(loop);
  const quiet = await connectedPair(loop);
  busy.server.resume(1);
  busy.server.limit = 1;
  quiet.server.resume();
  busy.client.send(pattern(100_000));
  await busy.server.until(() => busy.server.reads.length > 10);
  quiet.client.send('ping');
  await quiet.server.until(() => quiet.server.text === 'ping');
  assert.ok(busy.server.reads.length < 1000, `${busy.server.reads.length} reads came first`);
});

// recv(2) stops before urgent data however much there is behind it, so that a short read does not mean an empty socket.
test('bytes behind urgent data are read', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  const sender = urgentSender(t, port);
  const server = await accepted.promise;
  await sender.sent;
  server.resume();
  await server.until(() => server.text.includes('after'));
  assert.match(server.text, /^before!?after$/);
});

test('bytes that arrive one by one from an independent peer are all there', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  const socket = connect({ host: '127.0.0.1', port, noDelay: true });
  await once(socket, 'connect');
  const server = await accepted.promise;
  server.resume();
  const bytes = pattern(2000);
  for (let at = 0; at < bytes.length; at++) {
    socket.write(bytes.subarray(at, at + 1));
    if (at % 7 === 0) await nextTurns();
  }
  socket.end();
  await server.told('ended');
  assert.deepEqual(server.received, bytes);
});

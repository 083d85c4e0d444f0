import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { runChecked } from '../../src/netns/run.ts';
import { quickServer } from './quick-server.ts';
import {
  acceptSides,
  assertLog,
  connectedPair,
  connectSide,
  LOCAL,
  nextTurns,
  pattern,
  type Side,
  testLoop,
} from './side.ts';

/** A server of node:net, as an independent peer. */
async function netServer(t: TestContext, take: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    take(socket);
  });
  t.after(() => server.close());
  server.listen(0, LOCAL);
  await once(server, 'listening');
  return (server.address() as { port: number }).port;
}

test('either side ends first, the other one goes on sending', async (t) => {
  const loop = testLoop(t);
  for (const first of ['client', 'server'] as const) {
    const sides = await connectedPair(loop);
    const second = first === 'client' ? 'server' : 'client';
    sides.client.resume();
    sides.server.resume();
    sides[first].send('question');
    loop.shutdown(sides[first].channel);
    await sides[second].told('ended');
    assert.equal(sides[second].text, 'question');
    sides[second].send(pattern(100_000));
    loop.shutdown(sides[second].channel);
    await sides[first].told('ended');
    assert.deepEqual(sides[first].received, pattern(100_000));
    assert.equal(loop.write(sides[first].channel, 0, 1), -1);
    assert.equal(loop.close(sides.client.channel), true);
    assert.equal(loop.close(sides.server.channel), true);
    assertLog(sides.client, ['ended']);
    assertLog(sides.server, ['ended']);
  }
  assert.equal(loop.size, 0);
});

for (const resume of ['before the connect is done', 'in connected()', 'later'] as const) {
  test(`bytes and end that are one event with the connect are read when reading starts ${resume}`, async (t) => {
    const loop = testLoop(t);
    for (const answer of ['hello', '']) {
      const server = await quickServer(t, answer);
      const client = connectSide(loop, server.port);
      if (resume === 'before the connect is done') client.resume();
      if (resume === 'in connected()') client.on = (event) => event === 'connected' && client.resume();
      server.waitForServed();
      await client.told('connected');
      if (resume === 'later') {
        await nextTurns();
        client.resume();
      }
      await client.told('ended');
      assert.equal(client.text, answer);
      assertLog(client, ['connected', 'ended']);
      loop.close(client.channel);
    }
  });
}

test('bytes and end that arrive before the accept are read', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  const socket = connect({ host: LOCAL, port, allowHalfOpen: true });
  socket.end('early');
  const server = await accepted.promise;
  await nextTurns();
  server.resume();
  await server.told('ended');
  assert.equal(server.text, 'early');
  socket.destroy();
});

test('an end that arrives while reading is paused is told after the bytes before it', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  client.send(pattern(5000));
  loop.shutdown(client.channel);
  await nextTurns();
  assertLog(server, []);
  // Two reads that fill their limit exactly, then the end.
  server.resume(2500);
  server.limit = 2500;
  await server.told('ended');
  assert.deepEqual(server.reads, [2500, 2500]);
  assert.deepEqual(server.received, pattern(5000));
});

test('a reset of the peer is an error, not an end', async (t) => {
  const loop = testLoop(t);
  for (const state of ['reading', 'paused', 'after our shutdown', 'after its end'] as const) {
    const accepted = Promise.withResolvers<Side>();
    const { port, close } = acceptSides(loop, accepted.resolve);
    const socket = connect({ host: LOCAL, port, allowHalfOpen: true });
    await once(socket, 'connect');
    const server = await accepted.promise;
    close();
    if (state !== 'paused') server.resume();
    if (state === 'after our shutdown') loop.shutdown(server.channel);
    if (state === 'after its end') {
      socket.end();
      await server.told('ended');
    }
    if (state === 'after its end') {
      // A closed socket answers what still comes with a reset.
      socket.destroy();
      await once(socket, 'close');
      server.send('too late');
    } else {
      socket.resetAndDestroy();
    }
    const failure = await server.told('failed');
    assert.equal(
      failure,
      state === 'after its end'
        ? 'failed EPIPE: Broken pipe (os error 32)'
        : 'failed ECONNRESET: Connection reset by peer (os error 104)',
      state,
    );
    assert.equal(server.log.includes('ended'), state === 'after its end', state);
    assert.equal(loop.close(server.channel), true);
  }
  assert.equal(loop.size, 0);
});

test('bytes that arrived before a reset are delivered, then the reset is told, also when they pause the reading', async (t) => {
  const loop = testLoop(t);
  for (const limit of [0, 10, 1 << 20]) {
    const { client, server } = await connectedPair(loop);
    server.resume(10);
    server.limit = limit;
    client.send(pattern(100));
    loop.flush(client.channel);
    loop.reset(client.channel);
    await server.told('failed ECONNRESET');
    assert.deepEqual(server.received, pattern(limit === 0 ? 10 : 100));
    assertLog(server, ['failed ECONNRESET: Connection reset by peer (os error 104)']);
    loop.close(server.channel);
  }
});

test('reset() is a reset for an independent peer, close() is not', async (t) => {
  const loop = testLoop(t);
  for (const how of ['reset', 'close'] as const) {
    const ending = Promise.withResolvers<string>();
    const port = await netServer(t, (socket) => {
      socket.on('error', (error: NodeJS.ErrnoException) => ending.resolve(error.code!));
      socket.on('end', () => ending.resolve('end'));
      socket.resume();
    });
    const client = connectSide(loop, port);
    await client.told('connected');
    client.send('some bytes');
    loop[how](client.channel);
    assert.equal(await ending.promise, how === 'reset' ? 'ECONNRESET' : 'end');
    assert.equal(loop.size, 0);
  }
});

test('connecting to where nobody listens fails once, from the loop', async (t) => {
  const loop = testLoop(t);
  const { port, close } = acceptSides(loop, () => assert.fail('nobody listens'));
  close();
  const client = connectSide(loop, port);
  client.resume();
  await client.told('failed');
  await nextTurns();
  assertLog(client, ['failed ECONNREFUSED: Connection refused (os error 111)']);
  assert.equal(loop.close(client.channel), true);
});

test('a connect that is given up leaves nothing', async (t) => {
  const loop = testLoop(t);
  for (const how of ['close', 'reset'] as const) {
    const { port } = acceptSides(loop, (side) => side.resume());
    const client = connectSide(loop, port);
    client.send('never sent');
    loop[how](client.channel);
    assertLog(client, []);
  }
  assert.equal(loop.size, 0);
});

test('what is written and shut down before the connect is done is sent when it is', async (t) => {
  const loop = testLoop(t);
  for (const text of ['early', '']) {
    const accepted = Promise.withResolvers<Side>();
    const { port, close } = acceptSides(loop, accepted.resolve);
    const client = connectSide(loop, port);
    if (text !== '') client.send(text);
    loop.shutdown(client.channel);
    const server = await accepted.promise;
    server.resume();
    await server.told('ended');
    assert.equal(server.text, text);
    close();
  }
});

test('the end of a connection travels with its last bytes', async (t) => {
  const loop = testLoop(t);
  /** Segments that the server got until it knew of the end. */
  const segments = async (apart: boolean): Promise<number> => {
    const { client, server } = await connectedPair(loop);
    server.resume();
    client.send('last words');
    if (apart) await server.until(() => server.text === 'last words');
    loop.shutdown(client.channel);
    await server.told('ended');
    assert.equal(server.text, 'last words');
    const port = loop.localPort(client.channel);
    const told = await runChecked(['ss', '-Htin', `dport = :${port}`]);
    loop.reset(server.channel);
    loop.reset(client.channel);
    return Number(/\bsegs_in:(\d+)/.exec(told)?.[1]);
  };
  assert.equal((await segments(true)) - (await segments(false)), 1);
});

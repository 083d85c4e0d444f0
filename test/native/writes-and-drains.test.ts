import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { NO_LIMIT } from '../../native/channel.ts';
import { acceptSides, assertLog, connectedPair, connectSide, nextTurns, pattern, type Side, testLoop } from './side.ts';

const FRAME_HEADER = 9;

/** More than the kernel takes while nobody reads. */
const TOO_MUCH = 16 << 20;

test('what one channel reads and another writes arrives in order, from slab, scratch space and as frames', async (t) => {
  const loop = testLoop(t);
  const from = await connectedPair(loop);
  const to = await connectedPair(loop);
  const { scratchSize } = loop;
  const frame = (stream: number, flags: number, payload: Uint8Array) => {
    const header = Buffer.alloc(FRAME_HEADER);
    header.writeUIntBE(payload.length, 0, 3);
    header[4] = flags;
    header.writeUInt32BE(stream, 5);
    return Buffer.concat([header, payload]);
  };
  const expected: Uint8Array[] = [];
  const { server } = from;
  let turn = 0;
  server.data = (offset, length) => {
    const slab = () => Buffer.from(loop.memory.slice(offset, offset + length));
    // The write that comes before a frame ends where the frame's header goes, and so does the frame before a frame.
    const half = length >> 1;
    const quarter = half >> 1;
    expected.push(slab().subarray(0, quarter));
    loop.write(to.client.channel, offset, quarter);
    if (turn % 2 === 0) {
      expected.push(frame(turn, 1, slab().subarray(quarter, half)));
      loop.writeFrame(to.client.channel, turn, 1, offset + quarter, half - quarter);
    } else {
      const note = Buffer.from(`turn ${turn} `);
      expected.push(note, slab().subarray(quarter, half));
      loop.memory.set(note, scratchSize - note.length);
      loop.write(to.client.channel, scratchSize - note.length, note.length);
      loop.memory.fill(0, 0, scratchSize);
      loop.write(to.client.channel, offset + quarter, half - quarter);
    }
    expected.push(frame(turn, 0, slab().subarray(half)));
    loop.writeFrame(to.client.channel, turn, 0, offset + half, length - half);
    turn++;
    return NO_LIMIT;
  };
  server.resume();
  to.server.resume();
  const total = () => expected.reduce((sum, bytes) => sum + bytes.length, 0);
  for (let i = 0; i < 50; i++) {
    from.client.send(pattern(1 + i * 1000, i));
    const turns = turn;
    loop.flush(from.client.channel);
    while (turn === turns) await nextTurns();
  }
  await to.server.until(() => to.server.receivedLength >= total());
  assert.deepEqual(to.server.received, Buffer.concat(expected));
});

test('a frame begins in the headroom of the slab, or in the scratch space', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  server.resume();
  assert.equal(loop.writeFrame(client.channel, 1, 0, FRAME_HEADER - 1, 10), -1);
  assert.equal(loop.writeFrame(client.channel, 1, 0, loop.memory.length - 5, 6), -1);
  assert.equal(loop.write(client.channel, loop.memory.length, 1), -1);
  assert.equal(loop.write(client.channel, loop.memory.length, 0), 0);
  loop.memory.set(pattern(10), FRAME_HEADER);
  assert.ok(loop.writeFrame(client.channel, 0x7fffffff, 1, FRAME_HEADER, 10) > 0);
  loop.shutdown(client.channel);
  await server.told('ended');
  assert.deepEqual(
    server.received,
    Buffer.concat([Buffer.from([0, 0, 10, 0, 1, 0x7f, 0xff, 0xff, 0xff]), pattern(10)]),
  );
});

test('flush tells what the kernel did not take; drained follows until nothing is left', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  client.send('little');
  assert.equal(loop.flush(client.channel), 0);
  await nextTurns();
  assertLog(client, []);
  client.send(pattern(TOO_MUCH));
  const left = loop.flush(client.channel);
  assert.ok(left > 0 && left < TOO_MUCH, `${left}`);
  assert.equal(loop.flush(client.channel), left);
  await nextTurns();
  assertLog(client, []);
  server.resume();
  await client.told('drained 0');
  const levels = client.log.map((entry) => Number(/^drained (\d+)$/.exec(entry)![1]));
  assert.deepEqual(
    levels,
    [...new Set(levels)].sort((a, b) => b - a),
  );
  assert.ok(levels[0]! < left);
  await server.until(() => server.receivedLength === TOO_MUCH + 6);
  assert.deepEqual(server.received.subarray(6), pattern(TOO_MUCH));
  // Nobody asked this time.
  client.log.length = 0;
  client.send(pattern(TOO_MUCH));
  await server.until(() => server.receivedLength === 2 * TOO_MUCH + 6);
  assertLog(client, []);
});

test('what was flushed before the connect is done is reported as drained', async (t) => {
  const loop = testLoop(t);
  const { port } = acceptSides(loop, (side) => side.resume());
  const client = connectSide(loop, port);
  assert.equal(client.send('early'), 5);
  assert.equal(loop.flush(client.channel), 5);
  await client.told('drained');
  assertLog(client, ['connected', 'drained 0']);
});

test('what a promise writes after an event is sent without another event', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  const other = await connectedPair(loop);
  server.resume();
  // The reset is told outside of any turn's reads; its promise writes when the loop is about to sleep.
  const failed = other.server.told('failed').then(() => client.send('from a promise'));
  other.client.send('unread');
  loop.reset(other.client.channel);
  await failed;
  await server.until(() => server.text === 'from a promise');
});

test('a failure of a write is told from the loop, not inside write, flush, shutdown or close', async (t) => {
  const loop = testLoop(t);
  for (const method of ['write', 'flush', 'shutdown', 'close'] as const) {
    const accepted = Promise.withResolvers<Side>();
    const { port, close } = acceptSides(loop, accepted.resolve);
    const socket = connect({ host: '127.0.0.1', port });
    await once(socket, 'connect');
    const server = await accepted.promise;
    close();
    socket.resetAndDestroy();
    // The reset is in the kernel, the loop has not looked yet.
    server.send('into the void');
    const before = [...server.log];
    if (method === 'write') server.send(pattern(1000));
    else loop[method](server.channel);
    assertLog(server, before);
    if (method === 'close') {
      await nextTurns();
      assertLog(server, []);
    } else {
      await server.told('failed');
      assert.equal(loop.write(server.channel, 0, 1), -1);
      assert.equal(loop.close(server.channel), true);
    }
  }
  assert.equal(loop.size, 0);
});

test('close sends what is queued first and tells when that is done; reset does not', async (t) => {
  const loop = testLoop(t);
  {
    const { client, server } = await connectedPair(loop);
    client.send(pattern(TOO_MUCH));
    assert.equal(loop.close(client.channel), false);
    assert.equal(loop.close(client.channel), false);
    assert.equal(loop.write(client.channel, 0, 1), -1);
    server.resume();
    await server.told('ended');
    assert.deepEqual(server.received, pattern(TOO_MUCH));
    await client.told('closed');
    assertLog(client, ['closed']);
    assert.equal(loop.close(client.channel), true);
    loop.close(server.channel);
  }
  {
    const { client, server } = await connectedPair(loop);
    client.send(pattern(TOO_MUCH));
    assert.equal(loop.close(client.channel), false);
    server.resume();
    client.log.length = 0;
    loop.reset(client.channel);
    await server.told('failed ECONNRESET');
    await nextTurns();
    assertLog(client, []);
    loop.close(server.channel);
  }
  {
    // The peer breaks the connection that waits for its queue.
    const { client, server } = await connectedPair(loop);
    client.send(pattern(TOO_MUCH));
    assert.equal(loop.close(client.channel), false);
    loop.reset(server.channel);
    await client.told('closed');
    assertLog(client, ['closed']);
  }
  assert.equal(loop.size, 0);
});

// Each waits until the other one has taken what it sends, and wants nothing any more.
test('two ends that close with full queues both come to an end', async (t) => {
  const loop = testLoop(t);
  for (const reading of [false, true]) {
    const { client, server } = await connectedPair(loop);
    for (const side of [client, server]) {
      if (reading) side.resume(1);
      side.send(pattern(TOO_MUCH));
    }
    await nextTurns();
    for (const side of [client, server]) assert.equal(loop.close(side.channel), false);
    await Promise.all([client.told('closed'), server.told('closed')]);
    assertLog(client, ['closed']);
    assertLog(server, ['closed']);
  }
  assert.equal(loop.size, 0);
});

test('close inside data sends what the callback wrote', async (t) => {
  const loop = testLoop(t);
  const from = await connectedPair(loop);
  const to = await connectedPair(loop);
  from.server.on = () => {
    loop.write(to.client.channel, loop.scratchSize + 64, 5);
    loop.close(to.client.channel);
  };
  from.server.resume();
  to.server.resume();
  from.client.send('bytes');
  await to.server.told('ended');
  assert.equal(to.server.text, 'bytes');
});

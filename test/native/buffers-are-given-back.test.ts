import assert from 'node:assert/strict';
import { test } from 'node:test';
import { residentMebibytes } from '../support/resident-memory.ts';
import { connectedPair, pattern, testLoop } from './side.ts';

const MEBIBYTE = 1 << 20;

test('queues leave nothing behind: small objects that came later do not keep their memory', async (t) => {
  const loop = testLoop(t);
  // What is allocated between the queues lies behind them, for ever.
  const between: unknown[] = [];
  const fill = async () => {
    const pairs = [];
    for (let i = 0; i < 16; i++) {
      const pair = await connectedPair(loop);
      pair.server.limit = 0;
      loop.pause(pair.server.channel);
      const bytes = pattern(loop.scratchSize);
      // The buffers of the kernel are full by then.
      do {
        loop.memory.set(bytes);
        loop.write(pair.client.channel, 0, bytes.length);
      } while (loop.flush(pair.client.channel) < 6 * MEBIBYTE);
      between.push(Buffer.allocUnsafeSlow(100), loop.peer(pair.client.channel), ...pairs);
      pairs.push(pair);
    }
    return pairs;
  };
  const empty = async (pairs: Awaited<ReturnType<typeof fill>>) => {
    for (const { client, server } of pairs) {
      loop.reset(client.channel);
      loop.reset(server.channel);
    }
    loop.releaseBuffers();
    loop.releaseBuffers();
  };
  await empty(await fill());
  const before = residentMebibytes(process.pid);
  for (let round = 0; round < 3; round++) {
    const pairs = await fill();
    assert.ok(residentMebibytes(process.pid) - before > 80, 'they are not held');
    await empty(pairs);
    const left = residentMebibytes(process.pid) - before;
    assert.ok(left < 20, `${left} MiB are left`);
  }
});

test('buffers that are in use are kept for it', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  server.limit = 0;
  loop.pause(server.channel);
  const sent: Buffer[] = [];
  const bytes = pattern(50_000);
  do {
    loop.memory.set(bytes);
    loop.write(client.channel, 0, bytes.length);
    sent.push(bytes);
    loop.releaseBuffers();
  } while (loop.flush(client.channel) < 4 * MEBIBYTE);
  loop.shutdown(client.channel);
  server.limit = 1 << 20;
  server.on = () => {
    loop.releaseBuffers();
  };
  server.resume();
  await server.told('ended');
  assert.deepEqual(server.received, Buffer.concat(sent));
});

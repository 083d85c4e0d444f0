import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import { ChannelLoop } from '../../native/channel.ts';
import { connectedPair, LOCAL, nextTurns, type Side, testLoop } from './side.ts';

/** Two ends that send each other a byte for ever: there is traffic in every turn of the loop. */
async function busyPair(loop: ChannelLoop): Promise<{ readonly client: Side; readonly server: Side }> {
  const pair = await connectedPair(loop);
  for (const side of [pair.client, pair.server]) {
    side.data = (offset, length) => {
      side.reads.push(length);
      loop.write(side.channel, offset, length);
      return 1;
    };
    side.resume();
  }
  pair.client.send('x');
  return pair;
}

async function echo(): Promise<string> {
  const server = createServer((socket) => socket.pipe(socket));
  server.listen(0, LOCAL);
  await once(server, 'listening');
  const socket = connect({ host: LOCAL, port: (server.address() as { port: number }).port });
  socket.end('echo');
  socket.setEncoding('utf8');
  const [text] = await once(socket, 'data');
  server.close();
  await once(socket, 'close');
  return text as string;
}

/** What else a thread does, each of it through another part of libuv. */
const others: Record<string, () => Promise<unknown>> = {
  'a timer': () => new Promise((resolve) => setTimeout(resolve, 20)),
  'an immediate': () => new Promise(setImmediate),
  'an unreferenced immediate': () => new Promise((resolve) => setImmediate(resolve).unref()),
  'a file': () => readFile(new URL(import.meta.url)),
  'a message': () => {
    const { port1, port2 } = new MessageChannel();
    port1.postMessage('hello');
    return once(port2, 'message').finally(() => port1.close());
  },
  'sockets of Node': async () => assert.equal(await echo(), 'echo'),
};

for (const [name, run] of Object.entries(others)) {
  test(`${name} gets its turn beside a loop that is never idle, and beside one that sleeps`, async (t) => {
    const loop = testLoop(t);
    // Nobody promises that an unreferenced immediate wakes a thread.
    if (!name.includes('unreferenced')) await run();
    const busy = await busyPair(loop);
    const reads = busy.server.reads.length;
    for (let i = 0; i < 20; i++) await run();
    if (name === 'a timer') assert.ok(busy.server.reads.length > reads, 'traffic goes on meanwhile');
  });
}

test('channels get their turn beside a thread that never sleeps', async (t) => {
  const loop = testLoop(t);
  let spinning = true;
  const spin = () => {
    if (spinning) setImmediate(spin);
  };
  spin();
  t.after(() => {
    spinning = false;
  });
  const { client, server } = await connectedPair(loop);
  server.resume();
  for (let i = 1; i <= 100; i++) {
    client.send('x');
    await server.until(() => server.receivedLength === i);
  }
});

test('timers are not early or late while the loop sleeps', async (t) => {
  testLoop(t);
  for (const delay of [5, 50, 150]) {
    const start = performance.now();
    await new Promise((resolve) => setTimeout(resolve, delay));
    const took = performance.now() - start;
    // A loop that sleeps past a timer would wait for somebody's next event; a busy machine is late as well.
    assert.ok(took >= delay - 1.5 && took < delay + 5000, `${took} ms instead of ${delay}`);
  }
});

test('a sleeping loop takes no processor time', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  server.resume();
  client.resume();
  await nextTurns();
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 200_000, `${user + system} µs`);
});

test('a thread has one loop at a time', (t: TestContext) => {
  const loop = testLoop(t);
  assert.throws(() => new ChannelLoop(() => {}), /has a loop already/);
  loop.stop();
  testLoop(t);
});

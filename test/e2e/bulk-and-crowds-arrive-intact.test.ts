import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { finished } from 'node:stream/promises';
import { test } from 'node:test';
import { meshNetwork, noMoreThan, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen, listenEcho, patiently, type Talk } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

const MEBIBYTE = 1024 * 1024;
const block = randomBytes(MEBIBYTE);

test('whatever is carried arrives intact, and nothing is left when it has', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(client), workload(server), workload(outside, { protocol: 'TCP' })] },
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 7);
  const target = await listen(server, 8080);
  async function pair(from = client): Promise<{ near: Talk; far: Talk }> {
    const near = dial(from, server.ipv4, 8080);
    return { near, far: await target.accept() };
  }

  for (const from of [client, outside]) {
    await t.test(`64 MiB in both directions at once, from a ${from.name} pod`, async () => {
      const { near, far } = await pair(from);
      const [up, down] = await Promise.all([hashOf(far), hashOf(near), sendBlocks(near, 64), sendBlocks(far, 64)]);
      assert.deepEqual(up, expected(64));
      assert.deepEqual(down, expected(64));
      for (const { socket } of [near, far]) socket.destroy();
    });
  }

  await t.test('through a reader that pauses all the time', async () => {
    const { near, far } = await pair();
    const sent = sendBlocks(far, 16);
    const hash = createHash('sha256');
    let length = 0;
    let chunks = 0;
    for await (const chunk of near.socket) {
      hash.update(chunk);
      length += chunk.length;
      if (++chunks % 16 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await sent;
    assert.deepEqual({ length, digest: hash.digest('hex') }, expected(16));
    far.socket.destroy();
  });

  await t.test('a reader that stalls holds back its own sender only', async () => {
    // One after the other: who is accepted first need not have dialled first.
    const stalled: { near: Talk; far: Talk }[] = [];
    for (let i = 0; i < 8; i++) stalled.push(await pair());
    for (const { far } of stalled) for (let i = 0; i < 32; i++) far.send(block);
    // What the kernel, the windows and the tunnels take of it, until nothing moves any more.
    await agent.until(
      'at rest',
      async () => {
        const before = stalled.map(({ far }) => far.socket.bytesWritten - far.socket.writableLength);
        await new Promise((resolve) => setTimeout(resolve, 200));
        return stalled.every(({ far }, index) => far.socket.bytesWritten - far.socket.writableLength === before[index]);
      },
      (atRest) => atRest,
    );
    for (const { far } of stalled) assert.ok(far.socket.writableLength > 0, 'somebody buffers without limit');
    // Siblings of the same two tunnels are served as ever.
    for (let i = 0; i < 20; i++) assert.equal(await exchange(dial(client, server.ipv4, 7), 'hello'), 'hello');
    for (const { near, far } of stalled) {
      far.finish();
      assert.deepEqual(await hashOf(near), expected(32));
      near.socket.destroy();
      far.socket.destroy();
    }
  });

  await t.test('200 connections at once, and no descriptor is left of them', async () => {
    await crowd(200, 1000);
    await agent.atRest();
    const before = await descriptors();
    for (let round = 0; round < 3; round++) await crowd(200, 100_000);
    for (let i = 0; i < 50; i++) dial(client, server.ipv4, 7).reset();
    await Promise.all(Array.from({ length: 50 }, () => fate(dial(client, server.ipv4, 9))));
    await agent.atRest();
    // The question for the metrics is a connection itself, and may not be gone yet.
    await agent.until('rid of descriptors', descriptors, noMoreThan(before));
    const samples = await agent.metrics();
    assert.equal(total(samples, 'culvert_streams_open'), 0);
    for (const reporter of ['source', 'destination']) {
      assert.equal(
        total(samples, 'istio_tcp_connections_opened_total', { reporter }),
        total(samples, 'istio_tcp_connections_closed_total', { reporter }),
        reporter,
      );
    }
  });

  async function crowd(size: number, bytes: number): Promise<void> {
    const message = randomBytes(bytes / 2).toString('hex');
    const answers = await Promise.all(
      Array.from({ length: size }, () => exchange(dial(client, server.ipv4, 7), message)),
    );
    assert.ok(answers.every((answer) => answer === message));
  }

  /** Those of tunnels aside, of which a crowd may need more than one per thread. */
  async function descriptors(): Promise<Map<string, number>> {
    const tunnels = total(await agent.metrics(), 'culvert_tunnels_open');
    const kinds = agent.descriptors();
    return kinds.set('socket', (kinds.get('socket') ?? 0) - tunnels);
  }
});

async function sendBlocks({ socket }: Talk, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    if (!socket.write(block))
      await patiently('nothing is taken', new Promise((resolve) => socket.once('drain', resolve)));
  }
  socket.end();
  await finished(socket, { readable: false });
}

async function hashOf({ socket }: Talk): Promise<{ length: number; digest: string }> {
  const hash = createHash('sha256');
  let length = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { length, digest: hash.digest('hex') };
}

function expected(blocks: number): { length: number; digest: string } {
  const hash = createHash('sha256');
  for (let i = 0; i < blocks; i++) hash.update(block);
  return { length: blocks * MEBIBYTE, digest: hash.digest('hex') };
}

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
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

const events = ['connected', 'data', 'ended', 'drained', 'failed', 'closed', 'accepted'] as const;

for (const event of events) {
  test(`stop inside ${event}() closes everything, quietly`, async (t) => {
    const before = openDescriptors();
    const loop = testLoop(t);
    const others = await connectedPair(loop);
    others.client.send(pattern(16 << 20));
    const stopped = Promise.withResolvers<void>();
    const stop = () => {
      loop.stop();
      stopped.resolve();
    };
    const { client, server } = await connectedPair(loop);
    const all: Side[] = [client, server, others.client, others.server];
    client.on = (told) => told === event && stop();
    client.resume();
    server.resume();
    others.server.resume(1);
    if (event === 'connected' || event === 'accepted') {
      const { port } = acceptSides(loop, () => event === 'accepted' && stop());
      const other = connectSide(loop, port);
      other.on = client.on;
      await stopped.promise;
    }
    if (event === 'data') server.send('x');
    if (event === 'ended') loop.shutdown(server.channel);
    if (event === 'failed') loop.reset(server.channel);
    if (event === 'drained' || event === 'closed') {
      loop.pause(server.channel);
      client.send(pattern(16 << 20));
      if (event === 'closed') loop.close(client.channel);
      else assert.ok(loop.flush(client.channel) > 0);
      server.resume();
    }
    await stopped.promise;
    const logs = all.map(({ log }) => [...log]);
    assert.equal(loop.size, 0);
    for (const side of all) {
      assert.equal(side.send('x'), -1);
      assert.equal(loop.flush(side.channel), -1);
      assert.equal(loop.close(side.channel), true);
      loop.reset(side.channel);
      loop.resume(side.channel, 1);
      loop.shutdown(side.channel);
      assert.equal(loop.peer(side.channel), null);
      assert.equal(loop.tcpInfo(side.channel), null);
    }
    assert.throws(() => loop.connect(-1, LOCAL, 1, null, client), { code: 'ECANCELED' });
    assert.throws(() => loop.attach(0, client), { code: 'EPOLL' });
    assert.throws(() => loop.listen(0, false, { accepted() {}, failed() {} }), { code: 'ECANCELED' });
    loop.closeListener(0);
    loop.resumeListener(0);
    loop.stop();
    await nextTurns();
    assert.deepEqual(
      all.map(({ log }) => log),
      logs,
    );
    assertNothingOpened(before);
  });
}

test('stop from outside tells nobody', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  client.resume();
  server.resume();
  client.send(pattern(1 << 20));
  loop.stop();
  await nextTurns();
  assertLog(client, []);
  assertLog(server, []);
});

const program = new URL('busy-thread.ts', import.meta.url);

test('a thread that is terminated in the middle of its traffic leaves nothing', async () => {
  const descriptors = openDescriptors().size;
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(program, { workerData: { how: 'run' } });
    await once(worker, 'message');
    // At whatever it does right now.
    await new Promise((resolve) => setTimeout(resolve, i * 3));
    await worker.terminate();
    assert.equal(openDescriptors().size, descriptors);
  }
});

for (const how of ['exit', 'throw'] as const) {
  test(`a thread that ends itself by ${how} inside an event leaves nothing`, async () => {
    const descriptors = openDescriptors().size;
    const worker = new Worker(program, { workerData: { how } });
    const errors: string[] = [];
    worker.on('error', (error: Error) => errors.push(error.message));
    const status = await new Promise((resolve) => worker.once('exit', resolve));
    assert.deepEqual([status, errors], how === 'exit' ? [3, []] : [1, ['thrown in data']]);
    assert.equal(openDescriptors().size, descriptors);
  });
}

test('a process that exits inside an event exits with its status', async () => {
  const child = spawn(process.execPath, [program.pathname, 'exit'], { stdio: ['ignore', 'pipe', 'inherit'] });
  assert.deepEqual(await once(child, 'exit'), [3, null]);
});

test('a process whose loop was stopped ends by itself', async () => {
  const child = spawn(process.execPath, [program.pathname, 'stop'], { stdio: ['ignore', 'pipe', 'inherit'] });
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

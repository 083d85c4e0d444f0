import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { realTimers } from '../../src/zds/types.ts';

const never = new Int32Array(new SharedArrayBuffer(4));

test('an answer that came while the process had no processor is read before its time is over', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const reader = connect((server.address() as { port: number }).port, '127.0.0.1');
  t.after(() => reader.destroy());
  const [writer] = (await once(server, 'connection')) as [Socket];
  t.after(() => writer.destroy());
  const order: string[] = [];
  reader.on('data', () => order.push('answer'));
  const over = new Promise<void>((resolve) => {
    realTimers.after(20, () => {
      order.push('over');
      resolve();
    });
  });
  writer.write('answer');
  Atomics.wait(never, 0, 0, 100);
  await over;
  assert.deepEqual(order, ['answer', 'over']);
});

test('what is cancelled when its time has passed is not called', async () => {
  let called = false;
  const cancel = realTimers.after(1, () => {
    called = true;
  });
  setTimeout(cancel, 1);
  Atomics.wait(never, 0, 0, 20);
  for (let i = 0; i < 5; i++) await turn();
  assert.equal(called, false);
});

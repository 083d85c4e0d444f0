import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionCounts, newConnectionCounts } from '../../src/worker/connection-counts.ts';
import { application, dial, planeUnderTest, SERVED, startPod, until } from './support/plane-under-test.ts';

const LIMIT = 2;
const REFUSED = /the pod has 2 (inbound|outbound) connections, the limit of CULVERT_MAX_CONNECTIONS_PER_POD/;

test('each direction has the whole limit, and a connection that ends makes room', async (t) => {
  const rig = await planeUnderTest(t, { maxConnectionsPerPod: LIMIT });
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  // Each is an outbound connection and an inbound stream of the same pod.
  const clients = [await dial(t, rig.ports.outbound), await dial(t, rig.ports.outbound)];
  for (const client of clients) client.socket.write('hello');
  await Promise.all([app.next(), app.next()]);
  assert.doesNotMatch(rig.log(), REFUSED);
  const third = await dial(t, rig.ports.outbound);
  assert.equal(await third.ended, 'reset');
  assert.match(await rig.line('CULVERT_MAX_CONNECTIONS_PER_POD'), REFUSED);
  clients[0]!.socket.resetAndDestroy();
  await until('there is no room', () => rig.plane.snapshot()[0]!.connections.length === 2);
  (await dial(t, rig.ports.outbound)).socket.write('hello');
  await app.next();
});

test('connections of the pod in another thread count as well', async (t) => {
  const counts = newConnectionCounts(2);
  const otherThread = new ConnectionCounts(counts, 2);
  const rig = await planeUnderTest(t, { maxConnectionsPerPod: LIMIT });
  const app = await application(t);
  rig.app = app.port;
  startPod(rig, SERVED, counts);
  otherThread.add('inbound', 1);
  otherThread.add('outbound', 1);
  (await dial(t, rig.ports.plaintext)).socket.write('hello');
  await app.next();
  const further = await dial(t, rig.ports.plaintext);
  assert.equal(await further.ended, 'reset');
  assert.match(await rig.line('CULVERT_MAX_CONNECTIONS_PER_POD'), REFUSED);
  otherThread.add('inbound', -1);
  (await dial(t, rig.ports.plaintext)).socket.write('hello');
  await app.next();
});

test('the connections of a thread that crashed do not count any more', () => {
  const shared = newConnectionCounts(3);
  const threads = [1, 2, 3].map((thread) => new ConnectionCounts(shared, thread));
  for (const thread of threads) thread.add('inbound', 1);
  threads[1]!.add('outbound', 1);
  threads[2]!.add('inbound', -1);
  assert.deepEqual([threads[0]!.total('inbound'), threads[0]!.total('outbound')], [2, 1]);
  threads[1]!.clear();
  assert.deepEqual([threads[0]!.total('inbound'), threads[0]!.total('outbound')], [1, 0]);
});

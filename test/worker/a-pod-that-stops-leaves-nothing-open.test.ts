import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { CLOSED, OPENED, TRAFFIC_STRIDE } from '../../src/metrics/traffic.ts';
import {
  application,
  dial,
  LOCALHOST,
  POD,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from './support/plane-under-test.ts';

test('a peer that is in the middle of its handshake is turned away', async (t) => {
  const rig = await planeUnderTest(t, { handshakeTimeout: 3_600_000 });
  startPod(rig);
  const peer = connect(rig.ports.hbone, LOCALHOST);
  t.after(() => peer.destroy());
  peer.resume();
  await once(peer, 'connect');
  await until('it was not accepted', () => rig.plane.loop.size === 1);
  rig.plane.stopPod(POD.uid);
  assert.equal(rig.plane.loop.size, 0);
  await patiently('it is not closed', new Promise((resolve) => peer.once('close', resolve)));
  assert.match(rig.log(), /connection closed due to connection drain/);
});

for (const [where, speaks] of [
  ['while it connects', false],
  ['in its handshake', true],
] as const) {
  test(`a tunnel that is being opened is given up: ${where}`, async (t) => {
    const rig = await planeUnderTest(t, { connectTimeout: 3_600_000, handshakeTimeout: 3_600_000 });
    const peer = await application(t);
    const plan = tunnelTo({ ...rig.ports, hbone: peer.port }, 80);
    rig.answer = () => plan;
    startPod(rig);
    const client = await dial(t, rig.ports.outbound);
    if (speaks) await once(await peer.next(), 'data');
    else await until('no connection is made', () => rig.plane.loop.size === 2);
    rig.plane.stopPod(POD.uid);
    assert.equal(rig.plane.loop.size, 0);
    assert.equal(await client.ended, 'reset');
  });
}

test('connections in every state end, and count as closed without a flag', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const talking = await dial(t, rig.ports.outbound);
  talking.socket.write('hello');
  const served = await app.next();
  await once(served, 'data');
  rig.answer = () => 'never';
  rig.plane.plans.invalidate(
    rig.asked
      .keys()
      .map((index) => index + 1)
      .toArray(),
  );
  const planned = await dial(t, rig.ports.outbound);
  await until('it was not accepted', () => rig.plane.snapshot()[0]!.connections.length === 3);
  rig.plane.stopPod(POD.uid);
  assert.deepEqual(await Promise.all([talking.ended, planned.ended]), ['reset', 'reset']);
  await patiently('the application hears nothing', new Promise((resolve) => served.once('close', resolve)));
  await until('tunnels stay', () => rig.plane.loop.size === 0);
  // Both sides of the one that was counted, each opened once and closed once without a flag.
  const { traffic } = rig.metrics.report();
  assert.deepEqual([...traffic.live], [0, 0]);
  for (let i = 0; i < 2; i++) {
    const values = traffic.values.subarray(i * TRAFFIC_STRIDE, (i + 1) * TRAFFIC_STRIDE);
    assert.equal(values[OPENED], 1);
    assert.deepEqual([...values.subarray(CLOSED)], [1, 0, 0, 0, 0, 0, 0, 0]);
  }
});

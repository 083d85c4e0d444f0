import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { closeFd, listenTcp, OWN_NETNS } from '../../native/netns.ts';
import type { CompiledPolicies } from '../../src/policy/types.ts';
import { freePorts } from '../support/free-ports.ts';
import { plainListener } from '../support/tcp.ts';
import {
  ALLOW_ALL,
  application,
  DENY_ALL,
  dial,
  IDENTITY,
  LOCALHOST,
  POD,
  planeUnderTest,
  SERVED,
  startPod,
  until,
} from './support/plane-under-test.ts';

const AWAITING: CompiledPolicies = {
  ...ALLOW_ALL,
  refusal: { kind: 'awaited', policy: 'demo/late', reason: 'unknown policy demo/late is listed for this workload' },
};
const DENIED = { identity: IDENTITY, policies: DENY_ALL };
const CHANGE = /connection closed due to policy change/;
const REJECTION = /connection closed due to policy rejection: explicitly denied by: demo\/nobody/;

/** An address that takes no more connections and does not refuse them: its queue is full. */
async function busyPort(t: TestContext): Promise<number> {
  const [port] = (await freePorts(1)) as [number];
  const { fd } = listenTcp(OWN_NETNS, LOCALHOST, port, { ...plainListener, backlog: 0 });
  const waiting: Socket[] = [];
  t.after(() => {
    closeFd(fd);
    for (const socket of waiting) socket.destroy();
  });
  for (let connecting = 0; connecting === 0; ) {
    const socket = connect(port, LOCALHOST).on('error', () => {});
    waiting.push(socket);
    await Promise.race([once(socket, 'connect'), new Promise((resolve) => setTimeout(resolve, 200))]);
    // The news may be there already, behind the timer of a thread that had to wait.
    await new Promise(setImmediate);
    connecting = waiting.filter((candidate) => candidate.connecting).length;
  }
  return port;
}

for (const listener of ['outbound', 'plaintext'] as const) {
  const way = listener === 'outbound' ? 'through a tunnel' : 'in plain text';

  test(`a live connection that is denied now is cut, ${way}`, async (t) => {
    const rig = await planeUnderTest(t);
    const app = await application(t);
    rig.app = app.port;
    startPod(rig);
    const client = await dial(t, rig.ports[listener]);
    client.socket.write('hello');
    await once(await app.next(), 'data');
    rig.plane.updatePod(POD.uid, { identity: IDENTITY, policies: ALLOW_ALL });
    assert.doesNotMatch(rig.log(), CHANGE);
    // Not to know is no denial of what was allowed.
    rig.plane.updatePod(POD.uid, { identity: null, policies: null });
    assert.doesNotMatch(rig.log(), CHANGE);
    rig.plane.updatePod(POD.uid, DENIED);
    assert.match(await rig.line('policy change'), CHANGE);
    assert.equal(await client.ended, 'reset');
  });

  test(`a connection whose application is still being connected to is cut when it is denied, ${way}`, async (t) => {
    const rig = await planeUnderTest(t, { connectTimeout: 3_600_000 });
    rig.app = await busyPort(t);
    startPod(rig);
    const client = await dial(t, rig.ports[listener]);
    const inbound = () => rig.plane.snapshot()[0]!.connections.filter(({ direction }) => direction === 'inbound');
    await until('it did not come in', () => inbound().length === 1 && rig.plane.loop.size >= 2);
    rig.plane.updatePod(POD.uid, DENIED);
    assert.match(await rig.line('policy change'), CHANGE);
    assert.equal(inbound().length, 0);
    assert.equal(await client.ended, 'reset');
  });

  test(`a connection whose plan comes after it was denied is judged by what holds then, ${way}`, async (t) => {
    const rig = await planeUnderTest(t);
    const app = await application(t);
    rig.app = app.port;
    const answer = rig.answer;
    rig.answer = (query) => {
      if (query.kind === 'inbound') rig.plane.updatePod(POD.uid, DENIED);
      return answer(query);
    };
    startPod(rig, SERVED);
    const client = await dial(t, rig.ports[listener]);
    assert.equal(await client.ended, 'reset');
    assert.match(rig.log(), REJECTION);
    assert.equal(app.sockets.length, 0);
  });

  for (const [what, policies, fate] of [
    ['let in', ALLOW_ALL, 'let in'],
    ['refused', DENY_ALL, 'reset'],
  ] as const) {
    test(`a connection waits for a policy that is not there yet, and is ${what} by it, ${way}`, async (t) => {
      const rig = await planeUnderTest(t);
      const app = await application(t);
      rig.app = app.port;
      startPod(rig, { identity: IDENTITY, policies: AWAITING });
      const client = await dial(t, rig.ports[listener]);
      client.socket.write('hello');
      const inbound = () => rig.plane.snapshot()[0]!.connections.filter(({ direction }) => direction === 'inbound');
      await until('it did not come in', () => inbound().length === 1);
      await until('it is not asked for', () => rig.asked.some(({ kind }) => kind === 'inbound'));
      // Still not known: it goes on waiting.
      rig.plane.updatePod(POD.uid, { identity: IDENTITY, policies: { ...AWAITING } });
      assert.equal(inbound().length, 1);
      assert.equal(app.sockets.length, 0);
      rig.plane.updatePod(POD.uid, { identity: IDENTITY, policies });
      if (fate === 'reset') assert.equal(await client.ended, 'reset');
      else await once(await app.next(), 'data');
      assert.equal(app.sockets.length, fate === 'reset' ? 0 : 1);
    });
  }

  test(`a live connection lives on while a policy is awaited, ${way}`, async (t) => {
    const rig = await planeUnderTest(t);
    const app = await application(t);
    rig.app = app.port;
    startPod(rig);
    const client = await dial(t, rig.ports[listener]);
    client.socket.write('hello');
    const served = await app.next();
    await once(served, 'data');
    rig.plane.updatePod(POD.uid, { identity: IDENTITY, policies: AWAITING });
    client.socket.write('still');
    await once(served, 'data');
    rig.plane.updatePod(POD.uid, DENIED);
    assert.equal(await client.ended, 'reset');
  });

  test(`no connection is let in before the policies are known, ${way}`, async (t) => {
    const rig = await planeUnderTest(t);
    const app = await application(t);
    rig.app = app.port;
    startPod(rig, { identity: IDENTITY, policies: null });
    const client = await dial(t, rig.ports[listener]);
    assert.equal(await client.ended, 'reset');
    assert.match(rig.log(), /connection closed due to policy rejection: workload not found/);
    assert.equal(app.sockets.length, 0);
  });
}

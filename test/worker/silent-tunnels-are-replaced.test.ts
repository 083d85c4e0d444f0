import assert from 'node:assert/strict';
import type { ServerHttp2Stream } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { TUNNEL_TIMEOUTS } from '../../src/metrics/families.ts';
import {
  IDENTITY,
  LOCALHOST,
  type PlaneUnderTest,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from './support/plane-under-test.ts';
import { count, hear, http2Peer, peer } from './support/tunnel-peers.ts';

/** What lies between the pod and its peer: can swallow what goes through the connections that there are, without a sign. */
async function between(t: TestContext, rig: PlaneUnderTest, target: number) {
  const passing: [Socket, Socket][] = [];
  const way = {
    /** Ends connections that come from now on. */
    isClosed: false,
    get connections() {
      return passing.length;
    },
    /** Keeps back what comes, until `release`. */
    hold() {
      for (const [near, far] of passing) {
        near.unpipe(far);
        far.unpipe(near);
      }
    },
    /** Keeps back the answers of the far end until there are some and `isWhole`; what comes of it lets them through at once. */
    async gather(isWhole: () => boolean) {
      const [[near, far]] = passing as [[Socket, Socket]];
      const held: Buffer[] = [];
      far
        .unpipe(near)
        .on('data', (bytes: Buffer) => held.push(bytes))
        .resume();
      await until('no answer', () => isWhole() && held.length > 0);
      return () => near.write(Buffer.concat(held));
    },
    release() {
      for (const [near, far] of passing) near.pipe(far).pipe(near);
    },
    swallow() {
      for (const [near, far] of passing) {
        near.unpipe(far).resume();
        far.unpipe(near).resume();
      }
    },
  };
  const port = await peer(t, rig, (near) => {
    if (way.isClosed) {
      near.destroy();
      return;
    }
    const far = connect(target, LOCALHOST);
    far.on('error', () => near.destroy()).on('close', () => near.destroy());
    near.on('close', () => far.destroy());
    near.pipe(far).pipe(near);
    passing.push([near, far]);
  });
  rig.answer = () => tunnelTo({ ...rig.ports, hbone: port }, 80);
  return way;
}

function serve(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  stream.end('served');
}

test('the only endpoint is reached by another tunnel when nothing is heard of the one that is open', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, responseTimeout: 60_000 });
  const target = await http2Peer(t, rig, serve);
  const way = await between(t, rig, target);
  startPod(rig);
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  way.swallow();
  const crowd = await Promise.all(Array.from({ length: 10 }, () => hear(t, rig)));
  assert.deepEqual(crowd, Array(10).fill({ end: 'end', heard: 'served' }));
  assert.equal(way.connections, 2);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 10);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'), 0);
  await until('the silent tunnel stays', () => [...rig.plane.pool.connections()].length === 1);
});

test('a peer that vanishes just after something of it has crossed a request is found silent all the same', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 400, responseTimeout: 60_000 });
  let vanishes = false;
  const target = await http2Peer(t, rig, (stream) => {
    if (vanishes) {
      vanishes = false;
      stream.session!.ping(() => way.swallow());
      return;
    }
    serve(stream);
  });
  const way = await between(t, rig, target);
  startPod(rig);
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  vanishes = true;
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  assert.equal(way.connections, 2);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 1);
});

test('of several tunnels that fell silent together a request waits for one only', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, responseTimeout: 60_000, maxStreamsPerTunnel: 1 });
  const held: ServerHttp2Stream[] = [];
  let holds = true;
  const target = await http2Peer(t, rig, (stream) => {
    stream.respond({ ':status': 200 });
    if (holds) held.push(stream);
    else stream.end('served');
  });
  const way = await between(t, rig, target);
  startPod(rig);
  const first = Array.from({ length: 4 }, () => hear(t, rig));
  await until('no tunnel of its own for each', () => held.length === 4);
  holds = false;
  for (const stream of held) stream.end('served');
  assert.deepEqual(await Promise.all(first), Array(4).fill({ end: 'end', heard: 'served' }));
  // Nothing is on the way any more that would be heard once the request is sent.
  await until('a stream stays', () =>
    [...rig.plane.pool.connections()].every((each) => each.streamCount === 0 && rig.plane.now() - each.heardAt > 200),
  );
  assert.equal(way.connections, 4);
  way.swallow();
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 1);
  assert.equal(way.connections, 5);
  await until('a silent tunnel stays', () => [...rig.plane.pool.connections()].length === 1);
});

test('the only endpoint is given up when nothing is heard of its tunnel and none can be opened', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, responseTimeout: 60_000 });
  const target = await http2Peer(t, rig, serve);
  const way = await between(t, rig, target);
  startPod(rig);
  assert.equal((await hear(t, rig)).end, 'end');
  way.swallow();
  way.isClosed = true;
  assert.equal((await hear(t, rig)).end, 'reset');
  await until('a stream stays', () => [...rig.plane.pool.connections()].every((each) => each.streamCount === 0));
});

const recoveries: readonly [what: string, recover: (rig: PlaneUnderTest, way: { release(): void }) => void][] = [
  ['until its peer is heard of again', (_, way) => way.release()],
  [
    'until another one can be opened',
    (rig) => {
      rig.certify = (identity) =>
        void rig.sign(identity).then((certificate) => rig.plane.setCertificate(identity, certificate));
    },
  ],
];
for (const [when, recover] of recoveries) {
  test(`a request in a silent tunnel outlasts what this node lacks for another one, ${when}`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 200, responseTimeout: 60_000 });
    const target = await http2Peer(t, rig, serve);
    const way = await between(t, rig, target);
    startPod(rig);
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
    way.hold();
    const heard = hear(t, rig);
    await until('no request', () => [...rig.plane.pool.connections()].some(({ streamCount }) => streamCount === 1));
    rig.certify = (identity) => rig.plane.identities.fail(identity, 'the CA is away');
    rig.plane.forgetCertificate(IDENTITY);
    const asked = rig.certificates.length;
    await until('it is tried once only', () => rig.certificates.length >= asked + 2);
    recover(rig, way);
    assert.deepEqual(await heard, { end: 'end', heard: 'served' });
  });
}

test('a slow answer is waited for in the tunnel that was asked, as long as its peer answers a PING', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, responseTimeout: 60_000 });
  let asked = 0;
  await http2Peer(t, rig, (stream) => {
    const wait = asked++ === 0 ? 0 : 3000;
    setTimeout(() => {
      serve(stream);
    }, wait);
  });
  startPod(rig);
  for (let round = 0; round < 2; round++) assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  assert.equal(asked, 2);
  assert.equal([...rig.plane.pool.connections()].length, 1);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 0);
});

/** The answer comes and this thread stands still; the time for it is over when it goes on. */
const standstills: readonly [when: string, comes: (t: TestContext, standStill: () => void) => Promise<void>][] = [
  [
    // The timers that are due by then come before the next look for what has arrived.
    'before it looks for what has arrived',
    async (_, standStill) => {
      await new Promise(setImmediate);
      standStill();
    },
  ],
  [
    'after it has looked for what has arrived, and then looks at what is due',
    ({ mock }, standStill) =>
      new Promise((resolve) => {
        const { setImmediate } = globalThis;
        const next = mock.method(globalThis, 'setImmediate', (lookAtDeadlines: () => void) => {
          next.mock.restore();
          return setImmediate(() => {
            standStill();
            lookAtDeadlines();
            resolve();
          });
        });
      }),
  ],
];
for (const [when, comes] of standstills) {
  test(`an answer is not late that arrives while this thread stands still ${when}`, async (t) => {
    const rig = await planeUnderTest(t, { responseTimeout: 2500 });
    let answered = 0;
    const target = await http2Peer(t, rig, (stream) => {
      stream.on('close', () => answered++);
      serve(stream);
    });
    const way = await between(t, rig, target);
    startPod(rig);
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
    const heard = hear(t, rig);
    const deliver = await way.gather(() => answered === 2);
    await comes(t, () => {
      deliver();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
    });
    assert.deepEqual(await heard, { end: 'end', heard: 'served' });
    assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'), 0);
  });
}

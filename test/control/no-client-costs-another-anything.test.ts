/** Clients that are slow, dead, silent, loud or broken, beside one that is well. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { createStreamRate } from '../../src/control/ads/stream-rate.ts';
import { framePrefix } from '../../src/control/grpc/service.ts';
import { eventually } from '../cni/support/eventually.ts';
import { skippableTime } from '../support/skipped-time.ts';
import { encode } from '../support/xds-schema.ts';
import { policy, uid, workload } from '../xds/support/client-under-test.ts';
import { createTestMesh, type TestMesh } from './support/mesh-resources.ts';
import {
  ADDRESS,
  AUTHORIZATION,
  NODE,
  openPeer,
  PATH,
  type Peer,
  startControlPlane,
  type TestControlPlane,
} from './support/xds-peer.ts';

/** Some 40 MB of workloads, made once. */
let large: TestMesh | null = null;
function largeMesh(): TestMesh {
  const padding = 'x'.repeat(10_000);
  large ??= createTestMesh({
    addresses: Object.fromEntries(
      Array.from({ length: 4000 }, (_, index) => [
        uid(`pod-${index}`),
        workload(`pod-${index}`, { canonicalRevision: padding }),
      ]),
    ),
  });
  return large;
}

/** A peer that is well: a change reaches it. */
async function isServed(control: TestControlPlane, peer: Peer, round: number): Promise<void> {
  control.mesh.change({ policies: { 'demo/round': policy('round', { dryRun: round % 2 === 1 }) } });
  const { names } = await peer.take();
  assert.deepEqual(names, ['demo/round']);
}

async function wellPeer(t: TestContext, control: TestControlPlane): Promise<Peer> {
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: AUTHORIZATION });
  await peer.take();
  return peer;
}

/** A stream whose client decides by itself when it reads. */
async function rawStream(t: TestContext, { port, rootPem }: Pick<TestControlPlane, 'port' | 'rootPem'>) {
  const session = connect(`https://localhost:${port}`, { ca: rootPem });
  session.on('error', () => {});
  t.after(() => session.destroy());
  const stream = session.request({
    ':method': 'POST',
    ':path': PATH,
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization: 'Bearer mesh/agent',
  });
  stream.on('error', () => {});
  const send = (request: object) => {
    const bytes = encode('DeltaDiscoveryRequest', { node: NODE, ...request });
    stream.write(Buffer.concat([framePrefix(bytes.length), bytes]));
  };
  return { session, stream, send };
}

/** However long it takes, it is the same second for what is bounded by the second, until the clock goes on. */
function stopClock(t: TestContext): { goOn(): void } {
  const now = performance.now();
  const { mock } = t.mock.method(performance, 'now', () => now);
  return { goOn: () => mock.restore() };
}

test('only trusted accounts follow the mesh, and others take no place and no turn', async (t) => {
  const clock = stopClock(t);
  const control = await startControlPlane(t, { limits: { maxClients: 2, streamsPerSecond: 1, patienceMs: 0 } });
  const tenants = await Promise.all(Array.from({ length: 40 }, () => openPeer(t, control, 'tenant/any').ended));
  for (const { code, details } of tenants) {
    assert.equal(code, status.PERMISSION_DENIED);
    assert.match(details, /tenant\/any .*CA_TRUSTED_NODE_ACCOUNTS/);
  }
  const refused = control.lines.filter((line) => /a stream was refused.*tenant\/any/.test(line));
  assert.ok(refused.length > 0 && refused.length < 40, `${refused.length} lines`);
  const well = await wellPeer(t, control);
  clock.goOn();
  await isServed(control, well, 0);
});

test('one address has so many streams, and may have others when they are gone', async (t) => {
  const control = await startControlPlane(t, { limits: { streamsPerAgent: 2 } });
  const peers = [await wellPeer(t, control), await wellPeer(t, control)];
  const { code, details } = await openPeer(t, control).ended;
  assert.deepEqual([code, details], [status.RESOURCE_EXHAUSTED, '127.0.0.1 has too many streams already: 2']);
  peers[0]!.call.cancel();
  await control.clients(1);
  await isServed(control, await wellPeer(t, control), 0);
});

test('agents behind one address have as many streams each, by the pods of their tokens', async (t) => {
  const control = await startControlPlane(t, {
    limits: { streamsPerAgent: 1 },
    authenticate: async ({ authorization }) => {
      const name = String(authorization).replace('Bearer ', '');
      return { namespace: 'mesh', serviceAccount: 'agent', pod: { name, uid: `uid-${name}` }, node: null };
    },
  });
  const peers = Array.from({ length: 40 }, (_, index) => openPeer(t, control, `agent-${index}`));
  for (const peer of peers) {
    peer.ask({ typeUrl: AUTHORIZATION });
    await peer.take();
  }
  const { code, details } = await openPeer(t, control, 'agent-7').ended;
  const expected = 'the pod mesh/agent-7 (uid-agent-7) has too many streams already: 1';
  assert.deepEqual([code, details], [status.RESOURCE_EXHAUSTED, expected]);
  assert.ok(control.lines.some((line) => line.includes('a stream was refused') && line.includes(expected)));
});

test('a message that never ends ends its stream, and one that takes its time does not', async (t) => {
  const control = await startControlPlane(t, { limits: { messageMs: 500 } });
  const { stream, send } = await rawStream(t, control);
  send({ typeUrl: AUTHORIZATION });
  await control.clients(1);
  // Between messages there is no hurry.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assert.equal(control.ads.clients().length, 1);
  const trailers = once(stream, 'trailers');
  stream.resume();
  stream.write(Buffer.concat([framePrefix(30_000_000), Buffer.alloc(10_000)]));
  const [{ 'grpc-status': code }] = await trailers;
  assert.equal(Number(code), status.DEADLINE_EXCEEDED);
  await control.clients(0);
});

test('a client that rejects without end fills no log', async (t) => {
  const control = await startControlPlane(t);
  const peer = await wellPeer(t, control);
  for (let count = 0; count < 2000; count++) {
    peer.ask({ typeUrl: AUTHORIZATION, nonce: 'x', error: 'no' });
    peer.ask({ typeUrl: 'type.googleapis.com/none' });
  }
  const reject = () => control.ads.clients()[0]!.types[0]!.rejections;
  await eventually('all were heard', () => reject() === 2000);
  const lines = control.lines.filter((line) => /rejected resources|not served/.test(line));
  assert.ok(lines.length > 0 && lines.length < 1000, `${lines.length} lines`);
  await isServed(control, peer, 0);
});

test('clients that read nothing hold next to no memory, and are cut off', async (t) => {
  const skip = skippableTime(t);
  const control = await startControlPlane(t, { mesh: largeMesh(), limits: { stalledMs: 40_000 } });
  const well = await wellPeer(t, control);
  // The first snapshot is encoded once for all.
  const first = await rawStream(t, control);
  first.send({ typeUrl: ADDRESS });
  await control.clients(2);
  const before = process.memoryUsage();
  const slow = await Promise.all(Array.from({ length: 20 }, () => rawStream(t, control)));
  for (const { send } of slow) send({ typeUrl: ADDRESS });
  await control.clients(22);
  for (let round = 0; round < 5; round++) await isServed(control, well, round);
  const { arrayBuffers, external } = process.memoryUsage();
  const grown = (arrayBuffers + external - before.arrayBuffers - before.external) / 20;
  assert.ok(grown < 4_000_000, `${grown} bytes for each`);
  assert.equal(control.ads.clients().length, 22);
  skip(40_000);
  await control.clients(1);
  assert.match(control.lines.join(''), /a node proxy takes nothing, it is cut off/);
  assert.match(control.metrics(), /pilot_xds_write_timeout 21/);
  await isServed(control, well, 5);
});

test('a client that reads slowly gets everything', async (t) => {
  const control = await startControlPlane(t, { mesh: largeMesh() });
  const { stream, send } = await rawStream(t, control);
  send({ typeUrl: ADDRESS });
  let [taken, expected] = [0, Number.POSITIVE_INFINITY];
  for await (const bytes of stream as AsyncIterable<Buffer>) {
    if (taken === 0) expected = bytes.readUInt32BE(1) + 5;
    taken += bytes.length;
    if (taken < 2_000_000) await new Promise((resolve) => setTimeout(resolve, 5));
    if (taken >= expected) break;
  }
  assert.equal(taken, expected);
  assert.ok(expected > 40_000_000);
});

test('a connection whose other end has vanished is given up', async (t) => {
  const control = await startControlPlane(t, { connections: { pingIntervalMs: 200, pingTimeoutMs: 6000 } });
  const well = await wellPeer(t, control);
  const relays: Socket[] = [];
  const relay = createServer((near) => {
    const far = connectTcp(control.port, '127.0.0.1');
    for (const socket of [near, far]) {
      socket.on('error', () => {});
      t.after(() => socket.destroy());
    }
    relays.push(near, far);
    near.pipe(far).pipe(near);
  });
  t.after(() => relay.close());
  await once(relay.listen(0, '127.0.0.1'), 'listening');
  const { send } = await rawStream(t, { ...control, port: (relay.address() as AddressInfo).port });
  send({ typeUrl: ADDRESS });
  await control.clients(2);
  // From now on nothing gets through, and nobody says so.
  for (const socket of relays) socket.unpipe().pause();
  await control.clients(1);
  await isServed(control, well, 0);
});

test('who never answers is asked to come again', async (t) => {
  const control = await startControlPlane(t, { limits: { unansweredMs: 500 } });
  const peer = openPeer(t, control);
  peer.ask({ typeUrl: ADDRESS });
  await peer.hold();
  const { code } = await peer.ended;
  assert.equal(code, status.UNAVAILABLE);
  await control.clients(0);
});

/** What ends a stream, and with what. */
const broken: readonly [string, Buffer, number][] = [
  ['no protobuf', Buffer.from('ffffffffff', 'hex'), status.INVALID_ARGUMENT],
  ['a field that is cut off', Buffer.from([0x0a, 0x50, 0x01]), status.INVALID_ARGUMENT],
  ['a name that is not UTF-8', Buffer.from([0x1a, 0x01, 0xff]), status.INVALID_ARGUMENT],
  ['a message of nothing', Buffer.alloc(0), status.INVALID_ARGUMENT],
];

for (const [what, bytes, code] of broken) {
  test(`${what} ends its stream only`, async (t) => {
    const control = await startControlPlane(t);
    const well = await wellPeer(t, control);
    const bad = openPeer(t, control);
    bad.send(bytes);
    assert.equal((await bad.ended).code, code);
    await isServed(control, well, 0);
  });
}

test('a message that is longer than any proxy has to say is refused before it is there', async (t) => {
  const control = await startControlPlane(t);
  const { stream } = await rawStream(t, control);
  const trailers = once(stream, 'response');
  stream.write(framePrefix(33 * 1024 * 1024));
  const [headers] = await trailers;
  assert.equal(headers['grpc-status'], String(status.RESOURCE_EXHAUSTED));
});

test('requests in floods are answered by a few responses', async (t) => {
  const control = await startControlPlane(t, { changes: { addresses: { [uid('a')]: workload('a') } } });
  const well = await wellPeer(t, control);
  const loud = openPeer(t, control);
  for (let count = 0; count < 5000; count++) loud.ask({ typeUrl: ADDRESS, subscribe: [`x-${count % 10}`] });
  await isServed(control, well, 0);
  const first = await loud.hold();
  assert.deepEqual(loud.held(), [], 'nothing is sent before the first response is answered');
  // The rest of the flood is one request by now, or will be answered together with what is still to be read.
  await eventually('all is read', () => control.ads.clients().length === 2);
  loud.ask({ typeUrl: ADDRESS, nonce: first.nonce });
  assert.ok((await loud.hold()).removed.length <= 10);
});

test('a stream that would have to wait too long for its turn is refused', async (t) => {
  const control = await startControlPlane(t, { limits: { streamsPerSecond: 0.01, patienceMs: 1000 } });
  assert.equal((await openPeer(t, control).ended).code, status.RESOURCE_EXHAUSTED);
  assert.match(control.metrics(), /culvert_control_xds_refused_total\{reason="RESOURCE_EXHAUSTED"\} 1/);
});

test('new streams have their turns one after the other', () => {
  let now = 5000;
  const rate = createStreamRate(10, 500, () => now);
  // Ten at once, then one every 100 ms for those who wait no longer than 500.
  assert.deepEqual(
    Array.from({ length: 17 }, () => rate.admit()),
    [...Array(10).fill(0), 100, 200, 300, 400, 500, null, null],
  );
  now += 200;
  assert.deepEqual([rate.admit(), rate.admit(), rate.admit()], [400, 500, null]);
  now += 10_000;
  assert.deepEqual([rate.admit(), rate.admit()], [0, 0]);
});

test('strangers do not take the turns of others', async (t) => {
  stopClock(t);
  const control = await startControlPlane(t, { limits: { streamsPerSecond: 1, patienceMs: 0 } });
  const strangers = Array.from({ length: 50 }, () => openPeer(t, control, 'nobody'));
  for (const { ended } of strangers) assert.equal((await ended).code, status.UNAUTHENTICATED);
  await wellPeer(t, control);
  const lines = control.lines.filter((line) => line.includes('a stream was refused'));
  assert.ok(lines.length > 0 && lines.length < 50, `${lines.length} lines`);
});

test('two hundred clients are told of a change with the same bytes', async (t) => {
  const control = await startControlPlane(t);
  const peers = Array.from({ length: 200 }, () => openPeer(t, control));
  await Promise.all(
    peers.map(async (peer) => {
      peer.ask({ typeUrl: ADDRESS });
      await peer.take();
    }),
  );
  control.mesh.change({ addresses: { [uid('a')]: workload('a') } });
  const nonces = await Promise.all(peers.map(async (peer) => (await peer.take()).nonce));
  assert.ok(new Set(nonces).size < 200, 'no two were sent the same response');
  await eventually('all have acknowledged', () =>
    control.ads.clients().every(({ types }) => types[0]!.unacknowledgedMs === null),
  );
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants, createServer as createHttp2, type ServerHttp2Stream } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { HTTP2_BREACHES, TUNNEL_HANDSHAKES, TUNNEL_TIMEOUTS } from '../../src/metrics/families.ts';
import {
  application,
  dial,
  LOCALHOST,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from './support/plane-under-test.ts';
import { beyond, count, http2Peer, peer, tlsPeer } from './support/tunnel-peers.ts';

test('a server that does not shake hands', async (t) => {
  const rig = await planeUnderTest(t, { handshakeTimeout: 200 });
  await peer(t, rig, () => {});
  startPod(rig);
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.match(rig.log(), /direction="outbound".*error="tls handshake error: the peer took too long"/);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'tls-handshake'), 1);
});

test('a network gateway that takes nothing of the handshake with the far end', async (t) => {
  const rig = await planeUnderTest(t, { handshakeTimeout: 3000 });
  const resets: number[] = [];
  const port = await tlsPeer(t, rig, (socket) => {
    const http2 = createHttp2({ settings: { initialWindowSize: 0 } });
    http2.on('session', (session) => session.on('error', () => {}));
    http2.on('stream', (stream) => {
      stream.on('error', () => {});
      stream.on('close', () => resets.push((stream as ServerHttp2Stream).rstCode));
      (stream as ServerHttp2Stream).respond({ ':status': 200 });
    });
    http2.emit('connection', socket);
  });
  rig.answer = () => beyond(tunnelTo({ ...rig.ports, hbone: port }, 80), 80);
  startPod(rig);
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'tls-handshake'), 1);
  await until('the stream is not reset', () => resets.length === 1);
  assert.deepEqual(resets, [constants.NGHTTP2_CONNECT_ERROR]);
});

test('a server that shakes hands and does not speak HTTP/2', async (t) => {
  const rig = await planeUnderTest(t, { settingsTimeout: 200 });
  await tlsPeer(t, rig, () => {});
  startPod(rig);
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.match(rig.log(), /direction="outbound".*error="h2 failed: the peer sent no HTTP\/2 settings in time"/);
  assert.equal(count(rig, HTTP2_BREACHES, 'client', 'slow-preface'), 1);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'tls-handshake'), 0);
});

test('a server that does not answer a request keeps its tunnel while it is heard of', async (t) => {
  const rig = await planeUnderTest(t, { responseTimeout: 1500 });
  let asked = 0;
  await http2Peer(t, rig, (stream) => {
    // Something is heard of it all the time.
    const timer = setInterval(() => stream.session?.ping(() => {}), 50);
    stream.on('close', () => clearInterval(timer));
    asked++;
  });
  startPod(rig);
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.match(rig.log(), /error="the peer did not answer the CONNECT request in time"/);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'), 1);
  assert.equal(asked, 1);
  assert.deepEqual(
    [...rig.plane.pool.connections()].map(({ accepting }) => accepting),
    [true],
  );
});

test('a server of which nothing is heard any more gets no more requests in that tunnel', async (t) => {
  // What its TLS and HTTP/2 still have to say may come after the request: it is asked for a sign of itself after that.
  const rig = await planeUnderTest(t, { attemptTimeout: 500, responseTimeout: 3000 });
  let tunnels = 0;
  await http2Peer(t, rig, (stream, wire) => {
    tunnels++;
    if (tunnels === 1) wire.vanish();
    if (tunnels === 1) return;
    stream.respond({ ':status': 200 }, { endStream: true });
  });
  startPod(rig);
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  const next = await dial(t, rig.ports.outbound);
  next.socket.resume();
  assert.equal(await next.ended, 'end');
  assert.equal(tunnels, 2);
});

test('a client that does not shake hands', async (t) => {
  const rig = await planeUnderTest(t, { handshakeTimeout: 200 });
  startPod(rig);
  const socket = connect(rig.ports.hbone, LOCALHOST);
  t.after(() => socket.destroy());
  socket.resume();
  await patiently('it is not closed', new Promise((resolve) => socket.once('close', resolve)));
  assert.match(rig.log(), /direction="inbound" error="tls handshake error: the peer took too long"/);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'server', 'tls-handshake'), 1);
});

test('of too many handshakes the oldest give way, and who goes on gets through', async (t) => {
  const rig = await planeUnderTest(t, { maxHandshakesPerPod: 3 });
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const gone: number[] = [];
  for (let i = 0; i < 5; i++) {
    const socket = connect(rig.ports.hbone, LOCALHOST);
    t.after(() => socket.destroy());
    socket.resume();
    socket.once('close', () => gone.push(i));
    socket.on('error', () => {});
    const open = count(rig, TUNNEL_HANDSHAKES, 'server', 'too-many-handshakes') + 3;
    await until('it is not accepted', () => rig.plane.loop.size === Math.min(i + 1, open));
  }
  await until('the oldest stay', () => gone.length === 2);
  assert.deepEqual(gone.sort(), [0, 1]);
  assert.equal(count(rig, TUNNEL_HANDSHAKES, 'server', 'too-many-handshakes'), 2);
  assert.match(
    await rig.line('CULVERT_MAX_HANDSHAKES_PER_POD'),
    /direction="inbound" error="tls handshake error: given up/,
  );
  // A tunnel of the pod to itself: its handshake goes on at once.
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('hello');
  const served = await app.next();
  const [bytes] = await patiently('no bytes', once(served, 'data'));
  assert.equal(String(bytes), 'hello');
  client.socket.destroy();
});

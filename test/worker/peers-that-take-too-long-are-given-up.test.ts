import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants, createServer as createHttp2, type ServerHttp2Stream } from 'node:http2';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer as createTls } from 'node:tls';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { ATTEMPTS_RETRIED, HTTP2_BREACHES, TUNNEL_HANDSHAKES, TUNNEL_TIMEOUTS } from '../../src/metrics/families.ts';
import type { EndpointGroup, OutboundPlan } from '../../src/routing/plan.ts';
import { freePorts } from '../support/free-ports.ts';
import {
  application,
  dial,
  IDENTITY,
  LOCALHOST,
  type PlaneUnderTest,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from './support/plane-under-test.ts';

function count(rig: PlaneUnderTest, family: typeof TUNNEL_TIMEOUTS, ...labels: string[]): number {
  const slot = rig.metrics.slot(family, ...labels);
  return rig.metrics.report().values[slot] ?? 0;
}

/** A TCP server that tunnels of the pod go to; it ends with the test. */
async function peer(t: TestContext, rig: PlaneUnderTest, serve: (socket: Socket) => void, ip = LOCALHOST) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, ip, resolve));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = server.address() as { port: number };
  rig.answer = () => tunnelTo({ ...rig.ports, hbone: port }, 80);
  return port;
}

/** The same with TLS by Node's own. */
async function tlsPeer(t: TestContext, rig: PlaneUnderTest, serve: (socket: Socket, raw: Socket) => void) {
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  return peer(t, rig, (raw) => {
    const tls = createTls(
      { key: privateKeyPem(privateKey), cert: chainPem, ca: rootsPem, requestCert: true, ALPNProtocols: ['h2'] },
      (socket) => {
        socket.on('error', () => {});
        serve(socket, raw);
      },
    );
    tls.on('tlsClientError', () => {});
    tls.emit('connection', raw);
  });
}

/** The same with HTTP/2 by Node's own. */
async function http2Peer(t: TestContext, rig: PlaneUnderTest, serve: (stream: ServerHttp2Stream, raw: Socket) => void) {
  return tlsPeer(t, rig, (socket, raw) => {
    const http2 = createHttp2();
    http2.on('session', (session) => session.on('error', () => {}));
    http2.on('stream', (stream) => {
      stream.on('error', () => {});
      serve(stream as ServerHttp2Stream, raw);
    });
    http2.emit('connection', socket);
  });
}

/** A plan with tunnels to these ports, each with an application port of its own. */
function twoEndpoints({ ports }: PlaneUnderTest, first: number, second: number): OutboundPlan {
  const [one, other] = [first, second].map((hbone, index) => tunnelTo({ ...ports, hbone }, 80 + index)) as [
    ForwardPlan,
    ForwardPlan,
  ];
  return { ...one, groups: [...one.groups, ...other.groups] };
}

type ForwardPlan = Extract<OutboundPlan, { kind: 'forward' }>;

test('a server that does not shake hands', async (t) => {
  const rig = await planeUnderTest(t, { handshakeTimeout: 200 });
  await peer(t, rig, () => {});
  startPod(rig);
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.match(rig.log(), /direction="outbound".*error="tls handshake error: the peer took too long"/);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'tls-handshake'), 1);
});

test('a network gateway that takes nothing of the handshake with the far end', async (t) => {
  const rig = await planeUnderTest(t, { handshakeTimeout: 1000 });
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
  const rig = await planeUnderTest(t, { responseTimeout: 300 });
  let tunnels = 0;
  await http2Peer(t, rig, (stream, raw) => {
    tunnels++;
    raw.pause();
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

test('an endpoint that falls silent behind its tunnel costs no request while another one lives', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 200, responseTimeout: 60_000, maxStreamsPerTunnel: 1000 });
  const answer = (name: string, stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200 });
    stream.end(name);
  };
  let isDead = false;
  const doomed = await http2Peer(t, rig, (stream, raw) => {
    if (isDead) raw.pause();
    else answer('doomed', stream);
  });
  const alive = await http2Peer(t, rig, (stream) => answer('alive', stream));
  rig.answer = () => twoEndpoints(rig, doomed, alive);
  startPod(rig);
  const ask = async () => {
    const { socket, ended } = await dial(t, rig.ports.outbound);
    let heard = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      heard += text;
    });
    socket.end();
    assert.equal(await ended, 'end');
    return heard;
  };
  const crowd = () => Promise.all(Array.from({ length: 20 }, ask));
  await until('one of them is never asked', async () => new Set(await crowd()).size === 2);
  isDead = true;
  for (let round = 0; round < 3; round++) assert.deepEqual(await crowd(), Array(20).fill('alive'));
  assert.ok(count(rig, ATTEMPTS_RETRIED, 'connect-failed') >= 1);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'), 0);
  const [health] = rig.plane.unhealthyEndpoints();
  assert.equal(health?.failures, 1);
  await until('the silent tunnel stays', () => [...rig.plane.pool.connections()].length === 1);
});

/** A plan with so many near endpoints, at a port of the loopback, and a far one. */
function nearAndFar(rig: PlaneUnderTest, count: number, near: number, far: number): OutboundPlan {
  const plan = twoEndpoints(rig, near, far) as ForwardPlan;
  const [first, last] = plan.groups as [EndpointGroup, EndpointGroup];
  const ips = Array.from({ length: count }, (_, index) => `127.0.1.${index + 1}`);
  return {
    ...plan,
    groups: [
      { ...first, ips, uids: ips },
      { ...last, tier: 1 },
    ],
  };
}

const outages: readonly [what: string, near: number, serve: ((socket: Socket) => void) | null][] = [
  ['refuses', 30, null],
  ['says nothing', 12, () => {}],
];
for (const [what, near, serve] of outages) {
  test(`a near zone of ${near} that ${what} costs no connection while a far endpoint lives`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 400, connectTimeout: 2000 });
    const far = await http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      stream.end('far');
    });
    const dead = serve === null ? (await freePorts(1))[0]! : await peer(t, rig, serve, '0.0.0.0');
    rig.answer = () => nearAndFar(rig, near, dead, far);
    startPod(rig);
    const crowd = () => Promise.all(Array.from({ length: 12 }, () => hear(t, rig)));
    const retried = () =>
      count(rig, ATTEMPTS_RETRIED, 'tunnel-failed') + count(rig, ATTEMPTS_RETRIED, 'connect-failed');
    // Nothing is known of them yet.
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'far' });
    await until('the near ones are asked for ever', async () => {
      const before = retried();
      assert.deepEqual(await crowd(), Array(12).fill({ end: 'end', heard: 'far' }));
      return retried() === before;
    });
  });
}

test('an endpoint that is slow to answer is waited for while its tunnel is heard of', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 300 });
  let asked = 0;
  const slow = await http2Peer(t, rig, (stream) => {
    asked++;
    const timer = setInterval(() => stream.session?.ping(() => {}), 20);
    stream.on('close', () => clearInterval(timer));
    setTimeout(() => {
      stream.respond({ ':status': 200 });
      stream.end();
    }, 2000);
  });
  const [nobody] = await freePorts(1);
  rig.answer = () => twoEndpoints(rig, slow, nobody!);
  startPod(rig);
  // Those that meet the other endpoint first have none left after this one: not all of them do.
  const ends = Array.from({ length: 8 }, async () => {
    const { socket, ended } = await dial(t, rig.ports.outbound);
    socket.resume();
    return ended;
  });
  assert.deepEqual(await Promise.all(ends), Array(8).fill('end'));
  assert.equal(asked, 8);
});

/** Asks through the pod once, and hears all of the answer. */
async function hear(t: TestContext, rig: PlaneUnderTest) {
  const { socket, ended } = await dial(t, rig.ports.outbound);
  let heard = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    heard += text;
  });
  socket.end();
  return { end: await ended, heard };
}

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

test('the only endpoint is reached by another tunnel when nothing is heard of the one that is open', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 400, responseTimeout: 60_000 });
  const target = await http2Peer(t, rig, (stream) => {
    stream.respond({ ':status': 200 });
    stream.end('served');
  });
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

test('of several tunnels that fell silent together a request waits for one only', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 400, responseTimeout: 60_000, maxStreamsPerTunnel: 1 });
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
    [...rig.plane.pool.connections()].every((each) => each.streamCount === 0 && each.silentFor > 200),
  );
  assert.equal(way.connections, 4);
  way.swallow();
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 1);
  assert.equal(way.connections, 5);
  await until('a silent tunnel stays', () => [...rig.plane.pool.connections()].length === 1);
});

test('the only endpoint is given up when nothing is heard of its tunnel and none can be opened', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 400, responseTimeout: 60_000 });
  const target = await http2Peer(t, rig, (stream) => {
    stream.respond({ ':status': 200 });
    stream.end('served');
  });
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
    const target = await http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      stream.end('served');
    });
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
  const rig = await planeUnderTest(t, { attemptTimeout: 300, responseTimeout: 60_000 });
  let asked = 0;
  await http2Peer(t, rig, (stream) => {
    const wait = asked++ === 0 ? 0 : 2000;
    setTimeout(() => {
      stream.respond({ ':status': 200 });
      stream.end('served');
    }, wait);
  });
  startPod(rig);
  for (let round = 0; round < 2; round++) assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
  assert.equal(asked, 2);
  assert.equal([...rig.plane.pool.connections()].length, 1);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 0);
});

const silences: readonly [string, (stream: ServerHttp2Stream, raw: Socket) => void][] = [
  ['a network gateway that falls silent', (_, raw) => raw.pause()],
  ['a far end that says nothing beyond its gateway', (stream) => stream.respond({ ':status': 200 })],
];
for (const [what, serve] of silences) {
  test(`${what} costs no request while another one lives`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 200, responseTimeout: 60_000, handshakeTimeout: 60_000 });
    const app = await application(t);
    app.server.on('connection', (socket) => socket.end('served'));
    rig.app = app.port;
    const deliver = rig.answer;
    const requests: ServerHttp2Stream[] = [];
    const silent = await http2Peer(t, rig, (stream, raw) => {
      requests.push(stream);
      serve(stream, raw);
    });
    const gateway = await http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      const far = connect(rig.ports.hbone, LOCALHOST);
      far.on('error', () => {});
      stream.pipe(far).pipe(stream);
    });
    rig.answer = (query) =>
      query.kind === 'outbound' ? beyond(twoEndpoints(rig, silent, gateway), app.port) : deliver(query);
    startPod(rig);
    const ask = async () => {
      const { socket, ended } = await dial(t, rig.ports.outbound);
      let heard = '';
      socket.setEncoding('utf8').on('data', (text: string) => {
        heard += text;
      });
      socket.end();
      assert.equal(await ended, 'end');
      return heard;
    };
    await until('the silent one is never asked', async () => {
      assert.deepEqual(await Promise.all(Array.from({ length: 8 }, ask)), Array(8).fill('served'));
      return requests.length > 0;
    });
    assert.ok(count(rig, ATTEMPTS_RETRIED, 'connect-failed') >= 1);
    assert.deepEqual(
      [
        count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'),
        count(rig, TUNNEL_TIMEOUTS, 'client', 'tls-handshake'),
      ],
      [0, 0],
    );
    await until('handshakes stay', () => rig.plane.snapshot()[0]!.connections.length === 0);
  });
}

/** The same endpoints as gateways of another network, where the application is. */
function beyond(plan: OutboundPlan, app: number): OutboundPlan {
  if (plan.kind !== 'forward') return plan;
  return {
    ...plan,
    groups: plan.groups.map((group) => ({
      ...group,
      authority: { kind: 'fixed', text: `${LOCALHOST}:${app}` },
      inner: { expectedIdentities: [IDENTITY], forwardedNetwork: 'near' },
    })),
  };
}

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

test('a request whose tunnel breaks before the answer is sent once more, and nothing the application said is lost', async (t) => {
  const rig = await planeUnderTest(t);
  let breaks = 1;
  const requests: ServerHttp2Stream[] = [];
  await http2Peer(t, rig, (stream, raw) => {
    requests.push(stream);
    if (breaks-- > 0) {
      raw.resetAndDestroy();
      return;
    }
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.end('said early');
  let heard = '';
  client.socket.setEncoding('utf8').on('data', (text: string) => {
    heard += text;
  });
  assert.equal(await client.ended, 'end');
  assert.equal(heard, 'said early');
  assert.equal(requests.length, 2);
  // A peer that always breaks costs two requests.
  breaks = Number.POSITIVE_INFINITY;
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.match(rig.log(), /error="h2 failed: (Connection reset by peer|the peer closed the tunnel)/);
  assert.equal(requests.length, 4);
});

test('a tunnel that breaks after the answer resets the application: it is not known what was taken', async (t) => {
  const rig = await planeUnderTest(t);
  let requests = 0;
  await http2Peer(t, rig, (stream, raw) => {
    requests++;
    stream.respond({ ':status': 200 });
    stream.once('data', () => raw.resetAndDestroy());
  });
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('hello');
  assert.equal(await client.ended, 'reset');
  assert.equal(requests, 1);
});

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  createSecureServer,
  type Http2SecureServer,
  type SecureClientSessionOptions,
  type SecureServerOptions,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { type TestContext, test } from 'node:test';
import { privateKeyPem } from '../../../src/identity/workload-key.ts';
import type { OutboundPlan } from '../../../src/routing/plan.ts';
import {
  type Application,
  application,
  type Client,
  dial,
  IDENTITY,
  LOCALHOST,
  type PlaneUnderTest,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from '../../worker/support/plane-under-test.ts';
import { tlsClient } from './support/tls-client.ts';

const { NGHTTP2_CANCEL, NGHTTP2_CONNECT_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = constants;

/** Ways of node:http2 to use the protocol, each of which either side must cope with. */
const MANNERS: Readonly<Record<string, SecureClientSessionOptions & SecureServerOptions>> = {
  'as it comes': {},
  'with padded frames': { paddingStrategy: constants.PADDING_STRATEGY_MAX },
  'with tiny windows': { settings: { initialWindowSize: 1000 } },
  'without a dynamic table': { settings: { headerTableSize: 0 } },
  'with large frames': { settings: { maxFrameSize: 1_000_000, initialWindowSize: 10_000_000 } },
};

async function collect(readable: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of readable) chunks.push(chunk);
  return Buffer.concat(chunks);
}

// A client of node:http2 in front of a pod.

async function foreignClient(
  t: TestContext,
  rig: PlaneUnderTest,
  options: SecureClientSessionOptions = {},
): Promise<ClientHttp2Session> {
  const openTls = await tlsClient(rig);
  const session = connectHttp2('https://hbone.invalid', { ...options, createConnection: openTls });
  session.on('error', () => {});
  t.after(() => session.destroy());
  await patiently('no SETTINGS', once(session, 'remoteSettings'));
  return session;
}

function requestConnect(session: ClientHttp2Session, app: Application, headers = {}): ClientHttp2Stream {
  const stream = session.request(
    { ':method': 'CONNECT', ':authority': `${LOCALHOST}:${app.port}`, ...headers },
    { endStream: false },
  );
  stream.on('error', () => {});
  return stream;
}

async function statusOf(stream: ClientHttp2Stream): Promise<number> {
  const [headers] = await patiently('no answer', once(stream, 'response'));
  return Number(headers[':status']);
}

for (const [manner, options] of Object.entries(MANNERS)) {
  test(`a client of node:http2 gets its bytes back, ${manner}`, async (t) => {
    const rig = await planeUnderTest(t);
    const app = await application(t, { allowHalfOpen: true });
    app.server.on('connection', (socket) => socket.pipe(socket));
    rig.app = app.port;
    startPod(rig);
    const session = await foreignClient(t, rig, options);
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        const bytes = randomBytes(300_000);
        const stream = requestConnect(session, app);
        assert.equal(await statusOf(stream), 200);
        stream.end(bytes);
        assert.ok((await patiently('bytes are missing', collect(stream))).equals(bytes));
        assert.equal(stream.rstCode, NGHTTP2_NO_ERROR);
      }),
    );
    await until('streams stay open', () => rig.plane.snapshot()[0]!.connections.length === 0);
    session.close();
    await until('the tunnel stays open', () => rig.plane.loop.size === 0);
  });
}

test('a client of node:http2 changes its window in the middle', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const session = await foreignClient(t, rig, { settings: { initialWindowSize: 0 } });
  const stream = requestConnect(session, app);
  assert.equal(await statusOf(stream), 200);
  const bytes = randomBytes(500_000);
  (await app.next()).end(bytes);
  const all = collect(stream);
  session.settings({ initialWindowSize: 100_000 });
  assert.ok((await patiently('bytes are missing', all)).equals(bytes));
});

test('header blocks of node:http2 that go on in CONTINUATION frames are understood', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const session = await foreignClient(t, rig, { maxSendHeaderBlockLength: 100_000 });
  const stream = requestConnect(session, app, { 'x-long': 'y'.repeat(50_000) });
  assert.equal(await statusOf(stream), 200);
});

test('resets cross between node:http2 as the client and the application', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const session = await foreignClient(t, rig);
  const [ours, theirs] = [requestConnect(session, app), requestConnect(session, app)];
  assert.deepEqual([await statusOf(ours), await statusOf(theirs)], [200, 200]);
  const [first, second] = [await app.next(), await app.next()];
  const gone = new Promise((resolve) => first.once('close', resolve));
  // It ends the stream and then resets it.
  ours.close(NGHTTP2_CANCEL);
  await patiently('the application is not told', gone);
  second.resetAndDestroy();
  await patiently('no RST_STREAM', new Promise((resolve) => theirs.once('close', resolve)));
  assert.equal(theirs.rstCode, NGHTTP2_CONNECT_ERROR);
});

test('a request of node:http2 that is no CONNECT is answered 400, and the tunnel goes on', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const session = await foreignClient(t, rig);
  for (const endStream of [true, false]) {
    const stream = session.request({ ':path': '/' }, { endStream });
    stream.on('error', () => {});
    assert.equal(await statusOf(stream), 400);
    stream.resume();
    await patiently('it does not end', once(stream, 'close'));
    assert.equal(stream.rstCode, NGHTTP2_NO_ERROR);
  }
  assert.equal(await statusOf(requestConnect(session, app)), 200);
});

// A server of node:http2 as the peer of a pod's tunnels.

async function foreignServer(
  t: TestContext,
  rig: PlaneUnderTest,
  serve: (stream: ServerHttp2Stream) => void,
  options: SecureServerOptions = {},
): Promise<{ server: Http2SecureServer; sessions: ServerHttp2Session[] }> {
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  const server = createSecureServer({
    ...options,
    key: privateKeyPem(privateKey),
    cert: chainPem,
    ca: rootsPem,
    requestCert: true,
    rejectUnauthorized: true,
  });
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session) => {
    session.on('error', () => {});
    sessions.push(session);
  });
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => {});
    serve(stream);
  });
  server.listen(0, LOCALHOST);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  const { port } = server.address() as { port: number };
  const plan = tunnelTo({ ...rig.ports, hbone: port }, 80);
  rig.answer = () => plan;
  return { server, sessions };
}

function answerWith(stream: ServerHttp2Stream, status: number, body: string): void {
  stream.respond({ ':status': status });
  stream.end(body);
}

async function exchange(client: Client, bytes: Buffer): Promise<Buffer> {
  client.socket.end(bytes);
  return patiently('bytes are missing', collect(client.socket));
}

for (const [manner, options] of Object.entries(MANNERS)) {
  test(`a server of node:http2 echoes what tunnels bring, ${manner}`, async (t) => {
    const rig = await planeUnderTest(t);
    const { sessions } = await foreignServer(
      t,
      rig,
      (stream) => {
        stream.respond({ ':status': 200 });
        stream.pipe(stream);
      },
      options,
    );
    startPod(rig);
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        const bytes = randomBytes(300_000);
        assert.ok((await exchange(await dial(t, rig.ports.outbound), bytes)).equals(bytes));
      }),
    );
    assert.equal(sessions.length, 1, 'they share a tunnel');
    await until('connections stay', () => rig.plane.snapshot()[0]!.connections.length === 0);
  });
}

test('the request of a tunnel is a CONNECT without :scheme and :path, with the headers of HBONE in their order', async (t) => {
  const rig = await planeUnderTest(t);
  const got = Promise.withResolvers<string[]>();
  const { server } = await foreignServer(t, rig, (stream) => stream.respond({ ':status': 200 }, { endStream: true }));
  server.on('stream', (_stream, _headers, _flags, rawHeaders) =>
    got.resolve(rawHeaders.filter((_, index) => index % 2 === 0)),
  );
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.resume();
  assert.deepEqual(await patiently('no request', got.promise), [
    ':method',
    ':authority',
    'baggage',
    'forwarded',
    'traceparent',
  ]);
  assert.equal(await client.ended, 'end');
});

test('a stream that node:http2 refused is sent again, but not for ever', async (t) => {
  const rig = await planeUnderTest(t);
  let refusals = 1;
  let streams = 0;
  await foreignServer(t, rig, (stream) => {
    streams++;
    if (refusals-- > 0) {
      stream.close(NGHTTP2_REFUSED_STREAM);
      return;
    }
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  startPod(rig);
  const bytes = randomBytes(1000);
  assert.ok((await exchange(await dial(t, rig.ports.outbound), bytes)).equals(bytes));
  assert.equal(streams, 2);
  refusals = Number.POSITIVE_INFINITY;
  const client = await dial(t, rig.ports.outbound);
  assert.equal(await client.ended, 'reset');
  assert.ok(streams < 20, `${streams} times`);
});

test('RFC 9113 §6.8: a request behind the last stream of a GOAWAY is sent again in another tunnel, those before it go on', async (t) => {
  const rig = await planeUnderTest(t);
  let leaves = false;
  const { sessions } = await foreignServer(t, rig, (stream) => {
    if (leaves) {
      leaves = false;
      stream.session!.goaway(NGHTTP2_NO_ERROR, stream.id! - 2);
      return;
    }
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  startPod(rig);
  const first = await dial(t, rig.ports.outbound);
  first.socket.write('one');
  await patiently('no echo', once(first.socket, 'data'));
  leaves = true;
  const bytes = randomBytes(1000);
  assert.ok((await exchange(await dial(t, rig.ports.outbound), bytes)).equals(bytes));
  assert.equal(sessions.length, 2);
  first.socket.write('two');
  const [echo] = await patiently('no echo', once(first.socket, 'data'));
  assert.equal(echo.toString(), 'two');
});

test('requests too large to be sent are refused, each with the reason, and the tunnel goes on', async (t) => {
  const rig = await planeUnderTest(t);
  await foreignServer(t, rig, (stream) => stream.respond({ ':status': 200 }));
  const plan = tunnelTo(rig.ports, 80) as Extract<OutboundPlan, { kind: 'forward' }>;
  rig.answer = () => ({ ...plan, source: { ...plan.source, canonicalName: 'x'.repeat(100_000) } });
  startPod(rig);
  const clients = await Promise.all([1, 2, 3].map(() => dial(t, rig.ports.outbound)));
  for (const client of clients) assert.equal(await client.ended, 'reset');
  assert.equal(rig.log().match(/header list too large to send/g)?.length, 3);
  assert.deepEqual(
    [...rig.plane.pool.connections()].map(({ room }) => room > 0),
    [true],
  );
});

test('what node:http2 answers instead of 200 resets the application', async (t) => {
  const answers: [what: string, answer: (stream: ServerHttp2Stream) => void, log: RegExp][] = [
    ['503', (stream) => stream.respond({ ':status': 503 }, { endStream: true }), /http status: 503/],
    ['401 and bytes', (stream) => answerWith(stream, 401, 'no'), /http status: 401/],
    ['a reset', (stream) => stream.close(NGHTTP2_CANCEL), /h2 failed: stream reset by the peer: CANCEL/],
  ];
  for (const [what, answer, log] of answers) {
    const rig = await planeUnderTest(t);
    const { sessions } = await foreignServer(t, rig, answer);
    startPod(rig);
    for (let i = 0; i < 3; i++) assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset', what);
    assert.match(rig.log(), log);
    assert.equal(sessions.length, 1, 'the tunnel goes on');
    rig.plane.stop();
  }
});

test('a response that does not come is not waited for for ever', async (t) => {
  const rig = await planeUnderTest(t, { responseTimeout: 300 });
  const closed = Promise.withResolvers<number>();
  await foreignServer(t, rig, (stream) => stream.on('close', () => closed.resolve(stream.rstCode)));
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  assert.equal(await client.ended, 'reset');
  assert.equal(await patiently('no RST_STREAM', closed.promise), NGHTTP2_CANCEL);
  assert.match(rig.log(), /the peer did not answer the CONNECT request in time/);
});

test('a server of node:http2 that goes away keeps its streams, and new ones find another tunnel', async (t) => {
  const rig = await planeUnderTest(t);
  const { sessions } = await foreignServer(t, rig, (stream) => {
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  startPod(rig);
  const first = await dial(t, rig.ports.outbound);
  first.socket.write('one');
  await patiently('no echo', once(first.socket, 'data'));
  sessions[0]!.goaway(NGHTTP2_NO_ERROR);
  await until('GOAWAY has not come', () => [...rig.plane.pool.connections()].every(({ accepting }) => !accepting));
  const second = await dial(t, rig.ports.outbound);
  second.socket.write('two');
  await patiently('no echo', once(second.socket, 'data'));
  assert.equal(sessions.length, 2);
  first.socket.write('three');
  const [echo] = await patiently('no echo', once(first.socket, 'data'));
  assert.equal(echo.toString(), 'three');
});

test('a server of node:http2 that dies resets the application', async (t) => {
  const rig = await planeUnderTest(t);
  const { sessions } = await foreignServer(t, rig, (stream) => {
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('hello');
  await patiently('no echo', once(client.socket, 'data'));
  sessions[0]!.destroy();
  assert.equal(await client.ended, 'reset');
  await until('the tunnel stays', () => rig.plane.loop.size === 0);
});

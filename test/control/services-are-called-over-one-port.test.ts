/** The server of the control plane, called by the stock gRPC client. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { framePrefix, type GrpcService, refusal, type ServerStream } from '../../src/control/grpc/service.ts';
import { eventually } from '../cni/support/eventually.ts';
import { createAuthority } from '../native/authority.ts';
import { call, connectClient, metadata, openStream, serve, servingCertificate } from './support/grpc.ts';

/** Answers with what it was asked, and with who asked when that is `who`. */
const echo: GrpcService = {
  name: 'test.Echo',
  methods: {
    Once: {
      kind: 'unary',
      maxRequest: 1000,
      async answer(request, { metadata, peer }) {
        const text = request.toString();
        if (text === 'refuse') throw refusal('PERMISSION_DENIED', 'not für you: 100%\n');
        if (text === 'bug') throw new Error('a secret detail');
        if (text === 'who') {
          return Buffer.from(
            `${metadata.token} ${peer.certificate?.subjectAltName} ${/^127\.0\.0\.1:\d+$/.test(peer.address)}`,
          );
        }
        return request;
      },
    },
    Always: {
      kind: 'stream',
      messageMs: 30_000,
      maxRequest: 1000,
      open(stream: ServerStream) {
        stream.resume();
        return {
          message(bytes) {
            if (bytes.toString() === 'end') stream.end('RESOURCE_EXHAUSTED', 'enough');
            else stream.send([framePrefix(bytes.length + 1), bytes, Buffer.from('!')]);
          },
          closed() {},
        };
      },
    },
  },
};

const ONCE = '/test.Echo/Once';
const ALWAYS = '/test.Echo/Always';

test('a request is answered, and a refusal has its status and its words', async (t) => {
  const served = await serve(t, [echo]);
  const client = connectClient(t, served);
  assert.equal(String(await call(client, ONCE, Buffer.from('hello'))), 'hello');
  await assert.rejects(call(client, ONCE, Buffer.from('refuse')), {
    code: status.PERMISSION_DENIED,
    details: 'not für you: 100%\n',
  });
  await assert.rejects(call(client, '/test.Echo/Never', Buffer.from('x')), { code: status.UNIMPLEMENTED });
  await assert.rejects(call(client, ONCE, Buffer.alloc(1001)), { code: status.RESOURCE_EXHAUSTED });
});

test('a defect is told to the log and not to the caller', async (t) => {
  const served = await serve(t, [echo]);
  const client = connectClient(t, served);
  await assert.rejects(call(client, ONCE, Buffer.from('bug')), (error: Error & { code: number }) => {
    assert.equal(error.code, status.INTERNAL);
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
  assert.match(served.lines.join(''), /a secret detail/);
});

test('a service learns of headers, address and certificate of its caller', async (t) => {
  const served = await serve(t, [echo]);
  const anonymous = connectClient(t, served);
  assert.equal(String(await call(anonymous, ONCE, Buffer.from('who'), metadata({ token: 'a' }))), 'a undefined true');
  const uri = 'spiffe://cluster.local/ns/demo/sa/client';
  const known = connectClient(t, served, served.authority.material({ uris: [uri] }));
  assert.equal(String(await call(known, ONCE, Buffer.from('who'), metadata({ token: 'b' }))), `b URI:${uri} true`);
});

test('a client with a certificate of somebody else is refused', async (t) => {
  const served = await serve(t, [echo]);
  const stranger = connectClient(t, served, createAuthority('other').material({ uris: ['spiffe://x/ns/a/sa/b'] }));
  await assert.rejects(call(stranger, ONCE, Buffer.from('who')), { code: status.UNAVAILABLE });
  assert.match(served.lines.join(''), /the certificate of the client cannot be verified/);
});

test('messages of a stream keep their order, and its end has a status', async (t) => {
  const stream = openStream(connectClient(t, await serve(t, [echo])), ALWAYS);
  for (const text of ['a', 'b', '', 'c']) stream.send(Buffer.from(text));
  for (const text of ['a!', 'b!', '!', 'c!']) assert.equal(String(await stream.next()), text);
  stream.send(Buffer.from('end'));
  const { code, details } = await stream.ended;
  assert.deepEqual([code, details], [status.RESOURCE_EXHAUSTED, 'enough']);
});

test('a stream ends well when the client is done', async (t) => {
  const stream = openStream(connectClient(t, await serve(t, [echo])), ALWAYS);
  stream.send(Buffer.from('a'));
  await stream.next();
  stream.call.end();
  assert.equal((await stream.ended).code, status.OK);
});

test('a message that is too long or compressed ends its stream only', async (t) => {
  const served = await serve(t, [echo]);
  const client = connectClient(t, served);
  const other = openStream(client, ALWAYS);
  const long = openStream(client, ALWAYS);
  long.send(Buffer.alloc(1001));
  assert.equal((await long.ended).code, status.RESOURCE_EXHAUSTED);
  assert.equal(await rawCall(t, served, ALWAYS, Buffer.from([1, 0, 0, 0, 1, 0])), String(status.UNIMPLEMENTED));
  other.send(Buffer.from('x'));
  assert.equal(String(await other.next()), 'x!');
});

test('new connections see a replaced certificate, old ones go on, and a bad one changes nothing', async (t) => {
  const served = await serve(t, [echo]);
  const before = openStream(connectClient(t, served), ALWAYS);
  before.send(Buffer.from('1'));
  await before.next();
  const next = createAuthority('next');
  served.server.replaceCertificate(servingCertificate(next));
  const { keyPem } = createAuthority('third').material({ dnsNames: ['localhost'] });
  assert.throws(() => served.server.replaceCertificate({ ...servingCertificate(next), keyPem }), {
    code: 'CERTIFICATE_UNUSABLE',
  });
  const client = connectClient(t, { port: served.port, rootPem: next.rootPem });
  assert.equal(String(await call(client, ONCE, Buffer.from('new'))), 'new');
  before.send(Buffer.from('2'));
  assert.equal(String(await before.next()), '2!');
});

test('an old connection is asked to go, and its stream is ended after the grace', async (t) => {
  const served = await serve(t, [echo], { limits: { maxAgeMs: 300, graceMs: 200 } });
  const { session, stream } = await rawStream(t, served, ALWAYS);
  const goaway = once(session, 'goaway');
  const trailers = once(stream, 'trailers');
  stream.write(Buffer.concat([framePrefix(1), Buffer.from('a')]));
  const [code] = await goaway;
  assert.equal(code, 0);
  const [given] = await trailers;
  assert.equal(given['grpc-status'], String(status.UNAVAILABLE));
  assert.equal(given['grpc-message'], 'transport is closing');
});

test('a connection that may become as old as the settings permit gets no timer that fires at once', async (t) => {
  t.mock.method(Math, 'random', () => 0.99);
  const { mock } = t.mock.method(globalThis, 'setTimeout');
  const served = await serve(t, [echo], { limits: { maxAgeMs: 24 * 86_400_000 } });
  const { stream } = await rawStream(t, served, ALWAYS);
  stream.write(Buffer.concat([framePrefix(1), Buffer.from('a')]));
  await once(stream, 'data');
  const delays = mock.calls.map((made) => made.arguments[1] ?? 0);
  assert.ok(delays.some((ms) => ms > 24 * 86_400_000));
  assert.ok(
    delays.every((ms) => ms < 2 ** 31),
    String(delays),
  );
});

test('a connection without any call is asked to go, one that is alive is not', async (t) => {
  const limits = { maxIdleMs: 300, pingIntervalMs: 50, pingTimeoutMs: 1000 };
  const served = await serve(t, [echo], { limits });
  const { session, stream } = await rawStream(t, served, ALWAYS);
  let pings = 0;
  session.on('ping', () => pings++);
  const idle = connectHttp2(served.address, { ca: served.rootPem });
  idle.on('error', () => {});
  t.after(() => idle.destroy());
  await once(idle, 'close');
  await eventually('it is asked again whether it lives', () => pings >= 2);
  stream.write(Buffer.concat([framePrefix(1), Buffer.from('a')]));
  await once(stream, 'data');
  assert.equal(session.destroyed, false);
});

test('an answer that came while this thread stood still keeps its connection', async (t) => {
  const limits = { pingIntervalMs: 50, pingTimeoutMs: 500 };
  const served = await serve(t, [echo], { limits });
  const { session } = await rawStream(t, served, ALWAYS);
  let pings = 0;
  session.on('ping', () => {
    // The answer is sent at the end of this turn of the client.
    if (pings++ === 0) setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600));
  });
  await eventually('it is asked again whether it lives', () => pings >= 2);
  assert.equal(session.destroyed, false);
});

test('draining ends when the clients have gone', async (t) => {
  const served = await serve(t, [echo]);
  const { session, stream } = await rawStream(t, served, ALWAYS);
  stream.write(Buffer.concat([framePrefix(1), Buffer.from('a')]));
  await once(stream, 'data');
  const goaway = once(session, 'goaway');
  const drained = served.server.drain(60_000);
  await goaway;
  assert.equal(served.server.connections(), 1);
  stream.end();
  await drained;
  assert.equal(served.server.connections(), 0);
});

test('draining cuts off who does not go', async (t) => {
  const served = await serve(t, [echo]);
  const { session } = await rawStream(t, served, ALWAYS);
  const closed = once(session, 'close');
  await served.server.drain(200);
  await closed;
});

test('a connection that says nothing, garbage, or another protocol does no harm', async (t) => {
  const served = await serve(t, [echo]);
  const socket = connectTls({ host: '127.0.0.1', port: served.port, ca: served.rootPem, servername: 'localhost' });
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.resume();
  await once(socket, 'close');
  const garbage = connectTls({
    host: '127.0.0.1',
    port: served.port,
    ca: served.rootPem,
    servername: 'localhost',
    ALPNProtocols: ['h2'],
  });
  t.after(() => garbage.destroy());
  garbage.on('error', () => {});
  garbage.resume();
  await once(garbage, 'secureConnect');
  garbage.write(Buffer.alloc(10_000, 7));
  await once(garbage, 'close');
  assert.equal(String(await call(connectClient(t, served), ONCE, Buffer.from('on'))), 'on');
});

test('streams that are reset at once, in whatever state, do no harm', async (t) => {
  const served = await serve(t, [echo]);
  const { session } = await rawStream(t, served, ALWAYS);
  const message = Buffer.concat([framePrefix(3), Buffer.from('end')]);
  for (let round = 0; round < 20; round++) {
    const streams = [ONCE, ALWAYS, '/test.Echo/Never'].flatMap((path) =>
      ['POST', 'GET'].map((method) =>
        session.request({ ':method': method, ':path': path, 'content-type': 'application/grpc' }, { endStream: false }),
      ),
    );
    for (const [index, stream] of streams.entries()) {
      stream.on('error', () => {});
      stream.write(message);
      if (index % 2 === round % 2) stream.end();
    }
    // Some in the packet that opens them, some a little later.
    if (round % 3 > 0) await new Promise((resolve) => setTimeout(resolve, round % 5));
    for (const stream of streams) stream.close(8);
  }
  assert.equal(String(await call(connectClient(t, served), ONCE, Buffer.from('on'))), 'on');
});

async function rawStream(t: TestContext, { port, rootPem }: { port: number; rootPem: string }, path: string) {
  const session = connectHttp2(`https://localhost:${port}`, { ca: rootPem });
  session.on('error', () => {});
  t.after(() => session.destroy());
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => {});
  await once(session, 'connect');
  return { session, stream };
}

/** What it sends as it is; resolves with the status. */
async function rawCall(t: TestContext, served: { port: number; rootPem: string }, path: string, bytes: Buffer) {
  const { stream } = await rawStream(t, served, path);
  const response = once(stream, 'response');
  const trailers = once(stream, 'trailers').then(([headers]) => headers);
  stream.resume();
  stream.write(bytes);
  const [headers] = await response;
  return headers['grpc-status'] ?? (await trailers)['grpc-status'];
}

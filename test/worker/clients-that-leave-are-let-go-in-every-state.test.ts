import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  connect as connectHttp2,
  constants,
  createSecureServer,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
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

const { NGHTTP2_CANCEL } = constants;

const live = (rig: PlaneUnderTest) => rig.plane.snapshot()[0]!.connections.length;

/** A peer that takes requests and does not answer them. */
async function silentPeer(t: TestContext, rig: PlaneUnderTest) {
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  const server = createSecureServer({
    key: privateKeyPem(privateKey),
    cert: chainPem,
    ca: rootsPem,
    requestCert: true,
  });
  const streams: ServerHttp2Stream[] = [];
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session) => sessions.push(session.on('error', () => {})));
  server.on('stream', (stream: ServerHttp2Stream) => streams.push(stream.on('error', () => {})));
  server.listen(0, LOCALHOST);
  await once(server, 'listening');
  t.after(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  return { port: (server.address() as { port: number }).port, streams };
}

test('outbound, while its plan is asked for', async (t) => {
  const rig = await planeUnderTest(t);
  rig.answer = () => 'never';
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  await until('it was not accepted', () => live(rig) === 1);
  client.socket.resetAndDestroy();
  await until('it stays', () => live(rig) === 0 && rig.plane.loop.size === 0);
  assert.match(rig.log(), /connection failed.*client disconnected before the connection was made/);
});

test('outbound, while a certificate is waited for: the tunnel that it asked for is there for the next one', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  rig.certify = () => {};
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  await until('no certificate was asked for', () => rig.certificates.length === 1);
  client.socket.resetAndDestroy();
  await until('it stays', () => live(rig) === 0);
  rig.plane.setCertificate(IDENTITY, await rig.sign(IDENTITY));
  await until('there is no tunnel', () => rig.plane.pool.size === 1);
  (await dial(t, rig.ports.outbound)).socket.write('hello');
  await once(await app.next(), 'data');
  assert.equal(rig.plane.pool.size, 1);
  assert.equal(app.sockets.length, 1);
});

test('outbound, while the answer to its request is waited for: the stream is cancelled', async (t) => {
  const rig = await planeUnderTest(t);
  const { port, streams } = await silentPeer(t, rig);
  const plan = tunnelTo({ ...rig.ports, hbone: port }, 80);
  rig.answer = () => plan;
  startPod(rig);
  const [leaving, staying] = [await dial(t, rig.ports.outbound), await dial(t, rig.ports.outbound)];
  await until('no requests', () => streams.length === 2);
  leaving.socket.resetAndDestroy();
  await until('it stays', () => live(rig) === 1);
  await until('no stream is reset', () => streams.some(({ closed }) => closed));
  assert.deepEqual(streams.map(({ closed, rstCode }) => (closed ? rstCode : 'open')).sort(), [NGHTTP2_CANCEL, 'open']);
  staying.socket.destroy();
});

test('outbound, while a network gateway or the far end beyond it is waited for: the stream ends', async (t) => {
  const rig = await planeUnderTest(t, { responseTimeout: 60_000, handshakeTimeout: 60_000 });
  const { port, streams } = await silentPeer(t, rig);
  const plan = tunnelTo({ ...rig.ports, hbone: port }, 80);
  assert.ok(plan.kind === 'forward');
  const inner = { expectedIdentities: [IDENTITY], forwardedNetwork: 'near' };
  const groups = plan.groups.map((group) => ({ ...group, inner }));
  rig.answer = () => ({ ...plan, groups });
  startPod(rig);
  for (const answers of [false, true]) {
    const client = await dial(t, rig.ports.outbound);
    await until('no request', () => streams.length === 1);
    const [stream] = streams.splice(0);
    if (answers) {
      stream!.respond({ ':status': 200 });
      await patiently('no handshake', once(stream!, 'data'));
    }
    client.socket.resetAndDestroy();
    if (answers) await patiently('the stream does not end', once(stream!.resume(), 'end'));
    else await until('the stream is not reset', () => stream!.closed);
    stream!.destroy();
    await until('it stays', () => live(rig) === 0 && rig.plane.loop.size <= 1);
  }
});

test('inbound plain text, while its plan is asked for', async (t) => {
  const rig = await planeUnderTest(t);
  rig.answer = () => 'never';
  startPod(rig);
  const client = await dial(t, rig.ports.plaintext);
  await until('it was not accepted', () => live(rig) === 1);
  client.socket.resetAndDestroy();
  await until('it stays', () => live(rig) === 0 && rig.plane.loop.size === 0);
});

test('inbound through a tunnel, while its plan is asked for: the others go on', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  const answer = rig.answer;
  rig.answer = () => 'never';
  startPod(rig);
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  const session = connectHttp2('https://hbone.invalid', {
    createConnection: () =>
      connectTls({
        host: LOCALHOST,
        port: rig.ports.hbone,
        key: privateKeyPem(privateKey),
        cert: chainPem,
        ca: rootsPem,
        ALPNProtocols: ['h2'],
        checkServerIdentity: () => undefined,
      }),
  });
  session.on('error', () => {});
  t.after(() => session.destroy());
  const request = (authority: string) =>
    session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false }).on('error', () => {});
  const leaving = request(`${LOCALHOST}:1`);
  await until('no request', () => live(rig) === 1);
  leaving.close(NGHTTP2_CANCEL);
  await until('it stays', () => live(rig) === 0);
  rig.answer = answer;
  const [headers] = await patiently('no answer', once(request(`${LOCALHOST}:${app.port}`), 'response'));
  assert.equal(headers[':status'], 200);
});

test('inbound, after its application has refused', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  await new Promise((resolve) => app.server.close(resolve));
  startPod(rig);
  for (const port of [rig.ports.plaintext, rig.ports.outbound]) {
    assert.equal(await (await dial(t, port)).ended, 'reset');
    await until('it stays', () => live(rig) === 0);
  }
  assert.match(rig.log(), /connection failed: Connection refused/);
  assert.match(rig.log(), /http status: 503 Service Unavailable/);
  // Each was judged once.
  const report = rig.metrics.report();
  const verdicts = report.slots.flatMap(({ family, labels }, i) =>
    family.name === 'culvert_filter_verdicts' && labels[1] === 'connect' ? [[labels.join(' '), report.values[i]]] : [],
  );
  assert.deepEqual(
    verdicts.filter(([, value]) => value !== 0),
    [
      ['inbound-plaintext connect close', 1],
      ['inbound-hbone connect close', 1],
    ],
  );
});

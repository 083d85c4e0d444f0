import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { HTTP2_BREACHES, SOCKETS_OPEN } from '../../src/metrics/families.ts';
import { CLOSED } from '../../src/metrics/traffic.ts';
import { RESPONSE_FLAGS } from '../../src/metrics/traffic-labels.ts';
import {
  ALLOW_ALL,
  type Application,
  application,
  dial,
  IDENTITY,
  LOCALHOST,
  type PlaneUnderTest,
  POD,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from './support/plane-under-test.ts';

/** A client sends a word through the tunnel and the application gets it. */
async function passes(t: TestContext, rig: PlaneUnderTest, app: Application): Promise<void> {
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('hello');
  const served = await app.next();
  const [bytes] = await patiently('no bytes', once(served, 'data'));
  assert.equal(bytes.toString(), 'hello');
  client.socket.destroy();
}

/** TLS to the pod's tunnel port, by Node's own. */
async function foreignTls(t: TestContext, rig: PlaneUnderTest): Promise<TLSSocket> {
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  const tls = connectTls({
    host: LOCALHOST,
    port: rig.ports.hbone,
    key: privateKeyPem(privateKey),
    cert: chainPem,
    ca: rootsPem,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  t.after(() => tls.destroy());
  await patiently('no handshake', once(tls, 'secureConnect'));
  return tls;
}

test('a certificate that is renewed while a tunnel is being opened does not fail it', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  rig.certify = async (identity) => {
    const [first, renewed] = await Promise.all([rig.sign(identity), rig.sign(identity)]);
    // The first one starts the connection; by the time it is made there is another.
    rig.plane.setCertificate(identity, first);
    rig.plane.setCertificate(identity, renewed);
  };
  startPod(rig);
  await passes(t, rig, app);
});

test('the certificate of an identity that nobody has any more is dropped', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  await passes(t, rig, app);
  assert.deepEqual(rig.certificates, [IDENTITY]);
  rig.plane.forgetCertificate(IDENTITY);
  await passes(t, rig, app);
  assert.deepEqual(rig.certificates, [IDENTITY, IDENTITY]);
});

test('a renewed certificate that cannot be used is said, and the one of before stays in use', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  await passes(t, rig, app);
  rig.plane.setCertificate(IDENTITY, { ...(await rig.sign(IDENTITY)), chainPem: 'no certificate' });
  assert.match(rig.log(), /the certificate cannot be used: .+; the one of before stays in use/);
  assert.ok(rig.log().includes(IDENTITY));
  await passes(t, rig, app);
  assert.deepEqual(rig.certificates, [IDENTITY]);
});

test('a pod that got another identity sends peers that were verified for the old one away', async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const tls = await foreignTls(t, rig);
  const session = connectHttp2('https://hbone.invalid', { createConnection: () => tls });
  session.on('error', () => {});
  await patiently('no SETTINGS', once(session, 'remoteSettings'));
  const goaway = patiently('no GOAWAY', once(session, 'goaway'));
  // Losing sight of the workload for a while is no change.
  rig.plane.updatePod(POD.uid, { identity: null, policies: null });
  rig.plane.updatePod(POD.uid, { identity: IDENTITY, policies: ALLOW_ALL });
  await new Promise<void>((resolve, reject) => session.ping((error) => (error === null ? resolve() : reject(error))));
  rig.plane.updatePod(POD.uid, { identity: null, policies: null });
  rig.plane.updatePod(POD.uid, { identity: 'spiffe://another.domain/ns/demo/sa/app', policies: ALLOW_ALL });
  const [code] = await goaway;
  assert.equal(code, 0);
});

test('a tunnel that waits for a certificate when its pod stops is not opened any more', async (t) => {
  const rig = await planeUnderTest(t);
  const peer = await application(t);
  rig.answer = () => tunnelTo({ ...rig.ports, hbone: peer.port }, 80);
  rig.certify = () => {};
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  await until('no certificate was asked for', () => rig.certificates.length === 1);
  rig.plane.stopPod(POD.uid);
  assert.equal(await client.ended, 'reset');
  // The descriptor of the pod's namespace is somebody else's by now.
  rig.plane.setCertificate(IDENTITY, await rig.sign(IDENTITY));
  const next = connect(peer.port, LOCALHOST);
  t.after(() => next.destroy());
  await once(next, 'connect');
  assert.equal((await peer.next()).remotePort, next.localPort);
});

test('a peer that does its TLS handshake and then says nothing is turned away', async (t) => {
  const rig = await planeUnderTest(t, { settingsTimeout: 500 });
  startPod(rig);
  const tls = await foreignTls(t, rig);
  tls.resume();
  await patiently('it is not closed', new Promise((resolve) => tls.once('close', resolve)));
  assert.match(await rig.line('h2 failed'), /the peer sent no HTTP\/2 settings in time/);
  const slot = rig.metrics.slot(HTTP2_BREACHES, 'server', 'slow-preface');
  assert.equal(rig.metrics.report().values[slot], 1);
});

test('without a certificate connections are refused in either direction, and the next ones ask again', async (t) => {
  const rig = await planeUnderTest(t);
  rig.certify = (identity) => rig.plane.identities.fail(identity, 'the CA does not answer');
  startPod(rig);
  for (let i = 1; i <= 2; i++) {
    assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
    assert.equal(rig.certificates.length, i);
  }
  assert.match(rig.log(), /direction="outbound".*error="identity error: the CA does not answer"/);
  const { traffic } = rig.metrics.report();
  assert.equal(traffic.values[CLOSED + RESPONSE_FLAGS.indexOf('IDENTITY_ERROR')], 2);
  const peer = connect(rig.ports.hbone, LOCALHOST);
  t.after(() => peer.destroy());
  peer.resume();
  await patiently('it is not closed', new Promise((resolve) => peer.once('close', resolve)));
  assert.match(rig.log(), /direction="inbound" error="identity error: the CA does not answer"/);
});

test('sockets in their TLS handshake count as open', async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const slot = rig.metrics.slot(SOCKETS_OPEN, 'destination');
  const openSockets = () => rig.metrics.report().values[slot];
  assert.equal(openSockets(), 0);
  const peer = connect(rig.ports.hbone, LOCALHOST);
  t.after(() => peer.destroy());
  await until('it does not count', () => openSockets() === 1);
  await foreignTls(t, rig);
  await until('they do not count', () => openSockets() === 2);
  peer.destroy();
  await until('it counts on', () => openSockets() === 1);
});

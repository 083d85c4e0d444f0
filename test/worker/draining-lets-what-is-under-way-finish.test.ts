import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { acceptTcp, closeFd, connectTcp, listenTcp, OWN_NETNS } from '../../native/netns.ts';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { plainListener, unmarked } from '../support/tcp.ts';
import {
  application,
  dial,
  IDENTITY,
  LOCALHOST,
  patiently,
  planeUnderTest,
  startPod,
  until,
} from './support/plane-under-test.ts';

const LONG = 3_600_000;

test('a plane without connections has drained at once', async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  let done = false;
  rig.plane.drain(LONG, () => {
    done = true;
  });
  assert.equal(done, true);
  await assert.rejects(dial(t, rig.ports.outbound));
});

test('what comes while the plane takes connections that wait goes to its successor', async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const successor = listenTcp(OWN_NETNS, '0.0.0.0', rig.ports.hbone, plainListener).fd;
  t.after(() => closeFd(successor));
  const connect = (port: number) => {
    const { fd } = connectTcp(OWN_NETNS, LOCALHOST, port, null, unmarked);
    t.after(() => closeFd(fd));
  };
  const { plans } = rig.plane;
  const outbound = plans.outbound.bind(plans);
  plans.outbound = (...question) => {
    // The kernel spreads them over all who listen.
    for (let i = 0; i < 16; i++) connect(rig.ports.hbone);
    return outbound(...question);
  };
  connect(rig.ports.outbound);
  rig.plane.drain(LONG, () => {});
  let taken = 0;
  for (let next = acceptTcp(successor, false); next !== null; next = acceptTcp(successor, false)) {
    closeFd(next.fd);
    taken++;
  }
  assert.equal(taken, 16);
});

test('live connections end by themselves, and then the plane has drained', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('before');
  const served = await app.next();
  await once(served, 'data');
  const drained = Promise.withResolvers<void>();
  rig.plane.drain(LONG, drained.resolve);
  client.socket.write('after');
  const [bytes] = await patiently('no bytes', once(served, 'data'));
  assert.equal(bytes.toString(), 'after');
  client.socket.end();
  assert.equal(await client.ended, 'end');
  await patiently('it does not end', drained.promise);
  assert.equal(rig.plane.loop.size, 0);
  assert.doesNotMatch(rig.log(), /connection drain|forcefully/);
});

test('connections that do not end are cut at the deadline', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('hello');
  await app.next();
  const drained = Promise.withResolvers<void>();
  rig.plane.drain(300, drained.resolve);
  assert.equal(await client.ended, 'reset');
  await patiently('it does not end', drained.promise);
  assert.match(rig.log(), /drain duration expired with pending connections, forcefully shutting down/);
});

test('a handshake under way is finished, and its client hears to go elsewhere', async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const tcp = connect(rig.ports.hbone, LOCALHOST);
  t.after(() => tcp.destroy());
  await once(tcp, 'connect');
  await until('it was not accepted', () => rig.plane.loop.size === 1);
  let done = false;
  rig.plane.drain(LONG, () => {
    done = true;
  });
  assert.equal(done, false);
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  const session = connectHttp2('https://hbone.invalid', {
    createConnection: () =>
      connectTls({
        socket: tcp,
        key: privateKeyPem(privateKey),
        cert: chainPem,
        ca: rootsPem,
        ALPNProtocols: ['h2'],
        checkServerIdentity: () => undefined,
      }),
  });
  session.on('error', () => {});
  const announced = await patiently('no GOAWAY', once(session, 'goaway'));
  // A client of node:http2 that has no stream leaves then, and does not wait for the second.
  assert.deepEqual(announced.slice(0, 2), [0, 0x7fff_ffff]);
  await until('it has not drained', () => done);
  assert.equal(rig.plane.loop.size, 0);
});

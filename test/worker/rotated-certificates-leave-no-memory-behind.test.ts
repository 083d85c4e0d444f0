import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { residentMebibytes } from '../support/resident-memory.ts';
import { application, IDENTITY, LOCALHOST, patiently, planeUnderTest, startPod } from './support/plane-under-test.ts';

/** Two days of an identity whose certificates last a minute. */
const ROTATIONS = 2500;
/** An early round is as large as it gets: heaps and slabs have their size. */
const WARM_UP = 500;
/** With its chain, roots and key a TLS context takes some tens of KB, which would make about 80 MiB. */
const GROWTH_MIB = 30;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

test('thousands of rotations leave memory as it was, and a connection through all of them alive', async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  rig.app = app.port;
  startPod(rig);
  const open = async () => {
    const socket = connect(rig.ports.outbound, LOCALHOST).on('error', () => {});
    t.after(() => socket.destroy());
    socket.write('hello');
    const served = await app.next();
    await patiently('no bytes', once(served, 'data'));
    return { socket, served };
  };
  const long = await open();
  const serials = new Set<string>();

  const rotate = async (times: number) => {
    for (let rotation = 1; rotation <= times; rotation++) {
      const certificate = await rig.sign(IDENTITY);
      serials.add(certificate.serial);
      rig.plane.setCertificate(IDENTITY, certificate);
      // Tunnels come under a certificate, and go when it does.
      if (rotation % 50 === 0) (await open()).socket.destroy();
    }
    collect();
    // Without V8's heap, which takes what it likes: contexts and keys are OpenSSL's.
    return residentMebibytes(process.pid) - process.memoryUsage().heapTotal / 1024 ** 2;
  };

  const before = await rotate(WARM_UP);
  const after = await rotate(ROTATIONS);
  t.diagnostic(`${before.toFixed(1)} MiB before, ${after.toFixed(1)} MiB after ${ROTATIONS} rotations`);
  assert.equal(serials.size, WARM_UP + ROTATIONS);
  assert.ok(after - before < GROWTH_MIB, `${before} MiB before, ${after} MiB after`);

  long.socket.write('still');
  const [bytes] = await patiently('the connection is dead', once(long.served, 'data'));
  assert.equal(bytes.toString(), 'still');
});

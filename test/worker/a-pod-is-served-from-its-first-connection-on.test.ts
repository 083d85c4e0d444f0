import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { application, dial, LABELS, LOCALHOST, planeUnderTest, startPod } from './support/plane-under-test.ts';

for (const [listener, port] of [
  ['outbound, through a tunnel to itself', 'outbound'],
  ['inbound plain text', 'plaintext'],
] as const) {
  test(`a connection that comes right after the pod's listeners do is served: ${listener}`, async (t) => {
    const rig = await planeUnderTest(t);
    const app = await application(t);
    rig.app = app.port;
    if (port === 'plaintext') {
      rig.answer = () => ({
        kind: 'deliver',
        target: { ip: LOCALHOST, port: app.port },
        source: null,
        destination: { ...LABELS },
        service: null,
        appTunnel: null,
      });
    }
    // Nothing tells the plane about the pod's identity and policies afterwards.
    startPod(rig);
    const client = await dial(t, rig.ports[port]);
    client.socket.write('first');
    const served = await app.next();
    const [bytes] = await once(served, 'data');
    assert.equal(bytes.toString(), 'first');
  });
}

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { application, dial, patiently, planeUnderTest, startPod } from './support/plane-under-test.ts';

for (const [addresses, name, logged] of [
  [null, 'keys.log', true],
  [['127.0.0.0/8', 'fd00::/8'], 'keys.log', true],
  [['10.0.0.7', 'fd00::1'], 'keys.log', false],
  [null, 'gone/keys.log', false],
] as const) {
  test(`with peers ${addresses?.join(', ') ?? 'not given'} a tunnel on loopback is ${logged ? '' : 'not '}logged in ${name}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'culvert-keylog-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const keyLogPath = join(folder, name);
    const plane = await planeUnderTest(t, { keyLogPath, keyLogAddresses: addresses });
    const app = await application(t);
    plane.app = app.port;
    startPod(plane);
    const client = await dial(t, plane.ports.outbound);
    client.socket.write('hello');
    const [bytes] = await patiently('no bytes', once(await app.next(), 'data'));
    assert.equal(bytes.toString(), 'hello');
    client.socket.destroy();
    const text = existsSync(keyLogPath) ? readFileSync(keyLogPath, 'latin1') : '';
    assert.equal(text.includes('CLIENT_TRAFFIC_SECRET_0'), logged);
  });
}

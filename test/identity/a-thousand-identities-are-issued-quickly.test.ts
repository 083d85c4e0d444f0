import assert from 'node:assert/strict';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';
import { createCertificateManager } from '../../src/identity/manager.ts';
import { openCa } from './ca-folders.ts';
import { identity } from './manager-under-test.ts';
import { scratchFolder } from './scratch.ts';

test('a thousand identities get certificates of the embedded CA within 10 s of processor time', async (t) => {
  const manager = createCertificateManager({
    authority: await openCa(join(scratchFolder(t), 'ca')),
    log: { error() {}, warn() {}, debug() {} },
  });
  t.after(() => manager.close());
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const before = process.cpuUsage();
  const certificates = await Promise.all(Array.from({ length: 1000 }, (_, i) => manager.get(identity(`a${i}`))));
  const { user, system } = process.cpuUsage(before);
  const seconds = (user + system) / 1e6;
  delay.disable();
  assert.equal(new Set(certificates.map(({ serial }) => serial)).size, 1000);
  assert.ok(seconds < 10, `${seconds} s`);
  t.diagnostic(`${seconds.toFixed(2)} s, longest stall ${(delay.max / 1e6).toFixed(0)} ms`);
});

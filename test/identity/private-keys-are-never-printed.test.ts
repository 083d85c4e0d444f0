import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { workloadCertificate } from '../../src/identity/certificate.ts';
import { dumpCertificates } from '../../src/identity/dump.ts';
import { createCertificateManager } from '../../src/identity/manager.ts';
import { openCa } from './ca-folders.ts';
import { scratchFolder } from './scratch.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';

test('no way of printing a certificate, the manager or its dump shows a key', async (t) => {
  const logged: string[] = [];
  const log = {
    warn: (...all: unknown[]) => logged.push(inspect(all)),
    debug: (...all: unknown[]) => logged.push(inspect(all)),
  };
  const ca = await openCa(join(scratchFolder(t), 'ca'));
  const manager = createCertificateManager({ authority: ca, log });
  t.after(() => manager.close());
  const certificate = await manager.get(IDENTITY);
  const states = manager.list();
  const printed = [
    ...logged,
    `${certificate}`,
    JSON.stringify({ certificate, states }),
    inspect({ certificate, states, manager, ca }, { depth: null, showHidden: true }),
    JSON.stringify(dumpCertificates(states)),
  ].join('\n');
  assert.match(printed, /spiffe:/);
  assert.doesNotMatch(printed, /PRIVATE KEY/);
  for (const line of certificate.privateKeyPem.split('\n').slice(1, -2)) assert.ok(!printed.includes(line));
});

test('a certificate crosses threads whole, and can be protected there again', async (t) => {
  const certificate = await (await openCa(join(scratchFolder(t), 'ca'))).sign(IDENTITY);
  const received = structuredClone(certificate);
  assert.deepEqual({ ...received }, { ...certificate });
  assert.match(received.privateKeyPem, /PRIVATE KEY/);
  assert.doesNotMatch(inspect(workloadCertificate(received)), /PRIVATE KEY/);
});

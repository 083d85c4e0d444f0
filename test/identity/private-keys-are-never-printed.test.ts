import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { getHeapSnapshot } from 'node:v8';
import { dumpCertificates } from '../../src/identity/dump.ts';
import { createCertificateManager } from '../../src/identity/manager.ts';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { openCa } from './ca-folders.ts';
import { scratchFolder } from './scratch.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';

test('no way of printing a certificate, the manager or its dump shows a key', async (t) => {
  const logged: string[] = [];
  const log = {
    error: (...all: unknown[]) => logged.push(inspect(all)),
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
  for (const line of privateKeyPem(certificate.privateKey).split('\n').slice(1, -2)) assert.ok(!printed.includes(line));
});

test('a dump of the heap holds no key, neither of a certificate nor of the embedded CA', async (t) => {
  const folder = join(scratchFolder(t), 'ca');
  const ca = await openCa(folder);
  const certificate = await ca.sign(IDENTITY);
  // As a worker gets it.
  const received = structuredClone(certificate);
  const snapshot = (await getHeapSnapshot().toArray()).join('');
  assert.ok(snapshot.includes(IDENTITY));
  for (const pem of [privateKeyPem(received.privateKey), readFileSync(join(folder, 'ca-key.pem'), 'utf8')]) {
    for (const line of pem.split('\n').slice(1, -2)) assert.ok(!snapshot.includes(line));
  }
});

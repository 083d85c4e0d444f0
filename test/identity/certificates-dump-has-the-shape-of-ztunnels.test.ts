import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { WorkloadCertificate } from '../../src/identity/certificate.ts';
import { type DumpedCertificates, dumpCertificates } from '../../src/identity/dump.ts';
import { createBench, identity } from './manager-under-test.ts';

const captured: DumpedCertificates = JSON.parse(
  readFileSync(new URL('fixtures/ztunnel-certificates-dump.json', import.meta.url), 'utf8'),
);
const pem = (list: DumpedCertificates['certChain']) => list.map((entry) => Buffer.from(entry.pem, 'base64')).join('');

test('the certificates of a captured dump give the same dump', () => {
  const certificate: WorkloadCertificate = {
    identity: captured.identity,
    privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
    chainPem: pem(captured.certChain),
    rootsPem: pem(captured.rootCerts),
    notBefore: 0,
    notAfter: 0,
    serial: '',
  };
  const dump = dumpCertificates([{ identity: captured.identity, state: 'Available', certificate, renewAt: 0 }]);
  assert.deepEqual(dump, [captured]);
});

test('identities without a certificate show why', async (t) => {
  const { manager, next } = createBench(t);
  manager.prefetch(identity('b'));
  const waiting = assert.rejects(manager.get(identity('a')), { code: 'CERTIFICATE_UNAVAILABLE' });
  next();
  await next().fail('connection refused');
  await waiting;
  assert.deepEqual(dumpCertificates(manager.list()), [
    { identity: identity('a'), state: 'Unavailable: connection refused', certChain: [], rootCerts: [] },
    { identity: identity('b'), state: 'Initializing', certChain: [], rootCerts: [] },
  ]);
});

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { WorkloadCertificate } from '../../src/identity/certificate.ts';
import { splitCertificates } from '../../src/identity/pem.ts';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { layOut, openCa } from './ca-folders.ts';
import { keyKinds, makeIntermediate, makeRoot, openssl } from './openssl.ts';
import { scratchFolder } from './scratch.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';

/** Verifies as a strict TLS peer would, in both roles, and returns the leaf as text. */
function verify(t: TestContext, certificate: WorkloadCertificate): string {
  const folder = scratchFolder(t);
  const [leaf, ...intermediates] = splitCertificates(certificate.chainPem);
  writeFileSync(join(folder, 'leaf.pem'), leaf!);
  writeFileSync(join(folder, 'roots.pem'), certificate.rootsPem);
  writeFileSync(join(folder, 'intermediates.pem'), intermediates.join(''));
  const untrusted = intermediates.length === 0 ? [] : ['-untrusted', 'intermediates.pem'];
  for (const purpose of ['sslserver', 'sslclient']) {
    const args = ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', 'roots.pem', ...untrusted, 'leaf.pem'];
    assert.equal(openssl(folder, ...args), 'leaf.pem: OK\n');
  }
  assert.ok(new X509Certificate(leaf!).checkPrivateKey(certificate.privateKey));
  return openssl(folder, 'x509', '-in', 'leaf.pem', '-noout', '-text');
}

test('a certificate of a new CA has exactly the profile of a workload certificate', async (t) => {
  const dir = join(scratchFolder(t), 'ca');
  const certificate = await (await openCa(dir)).sign(IDENTITY);
  const text = verify(t, certificate);
  for (const expected of [
    /Version: 3/,
    /Signature Algorithm: ecdsa-with-SHA256/,
    /Subject: *\n/,
    /NIST CURVE: P-256/,
    /X509v3 Key Usage: critical\n\s+Digital Signature\n/,
    /X509v3 Extended Key Usage: *\n\s+TLS Web Server Authentication, TLS Web Client Authentication\n/,
    /X509v3 Basic Constraints: critical\n\s+CA:FALSE\n/,
    /X509v3 Subject Alternative Name: critical\n\s+URI:spiffe:\/\/cluster\.local\/ns\/default\/sa\/web\n/,
  ]) {
    assert.match(text, expected);
  }
  assert.equal(text.match(/X509v3 [A-Z]/g)?.length, 5, 'with the authority key identifier, and nothing else');
  assert.equal(certificate.identity, IDENTITY);
  assert.match(privateKeyPem(certificate.privateKey), /^-----BEGIN PRIVATE KEY-----\n/);
  assert.equal(certificate.chainPem.match(/BEGIN/g)?.length, 1, 'the root is not sent');
});

test('the new root is a CA that may sign certificates and lists, for ten years', async (t) => {
  const folder = scratchFolder(t);
  await openCa(join(folder, 'ca'));
  const text = openssl(
    folder,
    'x509',
    '-in',
    'ca/root-cert.pem',
    '-noout',
    '-text',
    '-checkend',
    String(3649 * 86_400),
  );
  assert.match(text, /X509v3 Basic Constraints: critical\n\s+CA:TRUE\n/);
  assert.match(text, /X509v3 Key Usage: critical\n\s+Certificate Sign, CRL Sign\n/);
  assert.match(text, /X509v3 Subject Key Identifier/);
  openssl(folder, 'verify', '-x509_strict', '-CAfile', 'ca/root-cert.pem', 'ca/ca-cert.pem');
});

for (const [kind, key] of Object.entries(keyKinds)) {
  test(`a plugged-in root with a key of kind ${kind} signs`, async (t) => {
    const folder = scratchFolder(t);
    makeRoot(folder, 'root', { key });
    const dir = layOut(folder, { key: ['root.key'], cert: ['root.crt'], chain: ['root.crt'], roots: ['root.crt'] });
    const text = verify(t, await (await openCa(dir)).sign(IDENTITY));
    const algorithm = kind.includes('RSA')
      ? 'sha256WithRSAEncryption'
      : kind.includes('384')
        ? 'ecdsa-with-SHA384'
        : 'ecdsa-with-SHA256';
    assert.ok(text.includes(`Signature Algorithm: ${algorithm}`));
  });
}

test('a plugged-in intermediate signs, and the chain leads to the root without containing it', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root', { key: keyKinds['RSA 2048 in PKCS#8']! });
  makeIntermediate(folder, 'upper', 'root');
  makeIntermediate(folder, 'lower', 'upper', { key: keyKinds['EC P-384 in SEC1']! });
  makeRoot(folder, 'other');
  const chains = [
    ['lower.crt', 'upper.crt', 'root.crt'],
    ['lower.crt', 'upper.crt'],
    ['upper.crt', 'root.crt'],
    ['root.crt', 'upper.crt', 'lower.crt'],
  ];
  for (const chain of chains) {
    const place = scratchFolder(t);
    for (const name of ['lower.key', 'lower.crt', 'upper.crt', 'root.crt', 'other.crt']) {
      writeFileSync(join(place, name), readFileSync(join(folder, name)));
    }
    const dir = layOut(place, { key: ['lower.key'], cert: ['lower.crt'], chain, roots: ['other.crt', 'root.crt'] });
    const certificate = await (await openCa(dir)).sign(IDENTITY);
    verify(t, certificate);
    const subjects = splitCertificates(certificate.chainPem).map((pem) => new X509Certificate(pem).subject ?? '');
    assert.deepEqual(
      subjects.slice(1).map((subject) => subject.split('\n').at(-1)),
      ['CN=lower', 'CN=upper'],
      chain.join(),
    );
    assert.equal(splitCertificates(certificate.rootsPem).length, 2);
  }
});

test('validity starts two minutes back and lasts for the time that was asked for', async (t) => {
  const now = Date.now();
  const ca = await openCa(join(scratchFolder(t), 'ca'), { ttl: 3_600_000, now: () => now });
  const certificate = await ca.sign(IDENTITY);
  const leaf = new X509Certificate(certificate.chainPem);
  const second = Math.floor(now / 1000) * 1000;
  assert.equal(certificate.notBefore, second - 120_000);
  assert.equal(certificate.notAfter, second + 3_600_000);
  assert.equal(leaf.validFromDate.getTime(), certificate.notBefore);
  assert.equal(leaf.validToDate.getTime(), certificate.notAfter);
});

test('validity never exceeds that of any certificate above', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root', { days: 2 });
  makeIntermediate(folder, 'lower', 'root', { days: 30 });
  const dir = layOut(folder, { key: ['lower.key'], cert: ['lower.crt'], chain: ['lower.crt'], roots: ['root.crt'] });
  const certificate = await (await openCa(dir, { ttl: 10 * 86_400_000 })).sign(IDENTITY);
  const root = new X509Certificate(readFileSync(join(folder, 'root.crt')));
  assert.equal(certificate.notAfter, root.validToDate.getTime());
  assert.equal(
    certificate.notBefore,
    new X509Certificate(readFileSync(join(folder, 'lower.crt'))).validFromDate.getTime(),
  );
});

test('serial numbers are random, positive and of at most 127 bits', async (t) => {
  const ca = await openCa(join(scratchFolder(t), 'ca'));
  const serials = new Set<string>();
  for (let i = 0; i < 200; i++) {
    const { serial, chainPem } = await ca.sign(IDENTITY);
    assert.equal(BigInt(serial), BigInt(`0x${new X509Certificate(chainPem).serialNumber}`));
    assert.ok(BigInt(serial) > 0n && BigInt(serial) < 2n ** 127n);
    serials.add(serial);
  }
  assert.equal(serials.size, 200);
  assert.ok(Math.max(...[...serials].map((serial) => BigInt(serial).toString(2).length)) > 120);
});

test('what is not an identity is not signed', async (t) => {
  const ca = await openCa(join(scratchFolder(t), 'ca'));
  await assert.rejects(ca.sign('spiffe://cluster.local/ns/a'), { code: 'IDENTITY_INVALID' });
});

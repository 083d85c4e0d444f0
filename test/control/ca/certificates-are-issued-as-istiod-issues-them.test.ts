import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { splitCertificates } from '../../../src/identity/pem.ts';
import { layOut } from '../../identity/ca-folders.ts';
import { clientOf, literal, serverOf } from '../../identity/istio-ca-under-test.ts';
import { makeIntermediate, makeRoot, openssl } from '../../identity/openssl.ts';
import { scratchFolder } from '../../identity/scratch.ts';
import { AGENT_TOKEN, caUnderTest, STRANGER_TOKEN, WEB } from './mesh-ca-under-test.ts';
import { impersonating, makeCsr } from './request.ts';

test('culvert’s own client gets a certificate, from a server that it verifies by the published roots', async (t) => {
  const ca = await caUnderTest(t);
  const { client, logged } = await clientOf(t, serverOf(ca, { token: literal(AGENT_TOKEN) }), { ttl: 3_600_000 });
  const certificate = await client.sign(WEB);
  assert.equal(certificate.identity, WEB);
  assert.equal(certificate.rootsPem, ca.rootsPem());
  const leaf = new X509Certificate(certificate.chainPem);
  assert.ok(leaf.checkPrivateKey(certificate.privateKey));
  const life = certificate.notAfter - certificate.notBefore;
  assert.equal(life, 3_600_000 + 120_000);
  assert.deepEqual(logged, []);
  assert.equal(ca.count('citadel_server_success_cert_issuance_count'), 1);
});

test('a certificate has the profile that peers know', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const chain = await ca.request({ csr: makeCsr(folder), ...impersonating(WEB) });
  assert.equal(chain.length, 2);
  writeFileSync(join(folder, 'leaf.pem'), chain[0]!);
  writeFileSync(join(folder, 'roots.pem'), chain[1]!);
  const text = openssl(folder, 'x509', '-in', 'leaf.pem', '-noout', '-text');
  assert.match(text, /Version: 3 /);
  assert.match(text, /Signature Algorithm: ecdsa-with-SHA256/);
  assert.match(text, /Issuer: O = cluster\.local\n/);
  assert.match(text, /Subject: *\n/);
  assert.match(text, /Key Usage: critical\n\s+Digital Signature, Key Encipherment\n/);
  assert.match(text, /Extended Key Usage: *\n\s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
  assert.match(text, /Basic Constraints: critical\n\s+CA:FALSE\n/);
  assert.match(text, /Subject Alternative Name: critical\n\s+URI:spiffe:\/\/cluster\.local\/ns\/default\/sa\/web\n/);
  assert.match(text, /Authority Key Identifier/);
  for (const purpose of ['sslserver', 'sslclient']) {
    const verify = ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', 'roots.pem', 'leaf.pem'];
    assert.equal(openssl(folder, ...verify), 'leaf.pem: OK\n');
  }
  const root = openssl(folder, 'x509', '-in', 'roots.pem', '-noout', '-text');
  assert.match(root, /Subject: O = cluster\.local\n/);
  assert.match(root, /Basic Constraints: critical\n\s+CA:TRUE\n/);
});

test('intermediates come one by one between the leaf and all roots', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  makeRoot(folder, 'other');
  makeIntermediate(folder, 'upper', 'root');
  makeIntermediate(folder, 'signer', 'upper');
  const rootDir = layOut(folder, {
    ...{ key: ['signer.key'], cert: ['signer.crt'], chain: ['signer.crt', 'upper.crt', 'root.crt'] },
    roots: ['root.crt', 'other.crt'],
  });
  const ca = await caUnderTest(t, { rootDir });
  const chain = await ca.request({ csr: makeCsr(folder), ...impersonating(WEB) });
  assert.deepEqual(
    chain.map((element) => splitCertificates(element).length),
    [1, 1, 1, 2],
  );
  for (const element of chain) assert.match(element, /[^\n]\n$/);
  const pem = (name: string) => new X509Certificate(readFileSync(join(folder, name))).toString();
  assert.deepEqual(chain.slice(1, 3), [pem('signer.crt'), pem('upper.crt')]);
  writeFileSync(join(folder, 'leaf.pem'), chain[0]!);
  writeFileSync(join(folder, 'between.pem'), chain.slice(1, 3).join(''));
  writeFileSync(join(folder, 'roots.pem'), chain[3]!);
  const verify = ['verify', '-x509_strict', '-CAfile', 'roots.pem', '-untrusted', 'between.pem', 'leaf.pem'];
  assert.equal(openssl(folder, ...verify), 'leaf.pem: OK\n');
});

test('who asks for nobody else gets its own identity', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const [leaf] = await ca.request({ csr: makeCsr(folder) }, STRANGER_TOKEN);
  assert.equal(new X509Certificate(leaf!).subjectAltName, 'URI:spiffe://cluster.local/ns/default/sa/stranger');
});

test('a common name in the request becomes the identity, where it fits', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const csr = makeCsr(folder, { subject: '/CN=whatever' });
  const [leaf] = await ca.request({ csr, ...impersonating(WEB) });
  assert.equal(new X509Certificate(leaf!).subject, `CN=${WEB}`);
  const long = `spiffe://cluster.local/ns/default/sa/${'w'.repeat(60)}`;
  ca.pods.running.add(`node1/default/${'w'.repeat(60)}`);
  const [other] = await ca.request({ csr, ...impersonating(long) });
  assert.equal(new X509Certificate(other!).subject, undefined);
});

test('the validity is what was asked for, within bounds', async (t) => {
  const ca = await caUnderTest(t, { defaultTtlMs: 7_200_000, maxTtlMs: 10_800_000 });
  const csr = makeCsr(scratchFolder(t));
  for (const [validitySeconds, seconds] of [
    [0, 7200],
    [-5, 7200],
    [60, 60],
    [10_800, 10_800],
  ] as const) {
    const before = Math.floor(Date.now() / 1000);
    const [leaf] = await ca.request({ csr, validitySeconds, ...impersonating(WEB) });
    const { validToDate, validFromDate } = new X509Certificate(leaf!);
    assert.equal((validToDate.getTime() - validFromDate.getTime()) / 1000, seconds + 120);
    assert.ok(validToDate.getTime() / 1000 >= before + seconds);
  }
  for (const validitySeconds of [10_801, Number.MAX_SAFE_INTEGER]) {
    await assert.rejects(ca.request({ csr, validitySeconds, ...impersonating(WEB) }), {
      code: 3,
      details: /^CSR signing error \(requested validity of \d+ s is more than the 10800 s of MAX_WORKLOAD_CERT_TTL\)$/,
    });
  }
});

test('no certificate lives longer than the one that signs it, and none is signed by one that has expired', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root', { days: 1 });
  const rootDir = layOut(folder, { key: ['root.key'], cert: ['root.crt'], chain: ['root.crt'], roots: ['root.crt'] });
  let late = 0;
  const ca = await caUnderTest(t, { rootDir }, () => Date.now() + late);
  const csr = makeCsr(folder);
  const [leaf] = await ca.request({ csr, validitySeconds: 40 * 86_400, ...impersonating(WEB) });
  const end = new X509Certificate(readFileSync(join(folder, 'root.crt'))).validToDate;
  assert.deepEqual(new X509Certificate(leaf!).validToDate, end);

  late = 86_400_000;
  const refused = { code: 13, details: /^CSR signing error \(the CA in .* expired on / };
  await assert.rejects(ca.request({ csr, ...impersonating(WEB) }), refused);
  assert.equal(ca.count('citadel_server_csr_sign_err_count', 'CA_EXPIRED'), 1);
});

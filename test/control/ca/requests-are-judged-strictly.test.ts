import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSigningRequest } from '../../../src/control/ca/csr.ts';
import { toPem } from '../../../src/identity/pem.ts';
import { signCertificateRequest } from '../../../src/identity/signing.ts';
import { generateWorkloadKey } from '../../../src/identity/workload-key.ts';
import { openssl } from '../../identity/openssl.ts';
import { scratchFolder } from '../../identity/scratch.ts';
import { caUnderTest, WEB } from './mesh-ca-under-test.ts';
import { impersonating, type KEYS, makeCsr } from './request.ts';

test('keys that are strong enough are certified, and the certificate is for that key', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const strong: readonly (readonly [keyof typeof KEYS, string])[] = [
    ['P-256', 'sha256'],
    ['P-256', 'sha512'],
    ['P-384', 'sha384'],
    ['RSA 2048', 'sha256'],
    ['RSA 2048', 'sha384'],
  ];
  for (const [key, digest] of strong) {
    const [leaf] = await ca.request({ csr: makeCsr(folder, { key, digest }), ...impersonating(WEB) });
    const wanted = openssl(folder, 'pkey', '-in', 'key.pem', '-pubout');
    assert.equal(new X509Certificate(leaf!).publicKey.export({ type: 'spki', format: 'pem' }), wanted, key);
  }
});

test('weak keys and signatures are refused by name', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const weak: readonly (readonly [keyof typeof KEYS, RegExp, string?])[] = [
    ['RSA 1024', /RSA key of fewer than 2048 bits/],
    ['RSA with exponent 3', /exponent out of bounds/],
    ['P-521', /curve other than P-256 and P-384/],
    ['secp256k1', /curve other than P-256 and P-384/],
    ['Ed25519', /neither RSA nor on P-256 or P-384/],
    ['RSA-PSS', /neither RSA nor on P-256 or P-384/],
    ['P-256', /signature is of a kind that is not accepted/, 'sha1'],
  ];
  for (const [key, details, digest] of weak) {
    const csr = makeCsr(folder, { key, ...(digest === undefined ? {} : { digest }) });
    await assert.rejects(ca.request({ csr, ...impersonating(WEB) }), { code: 3, details }, key);
  }
  assert.equal(ca.count('citadel_server_csr_parsing_err_count'), weak.length);
  assert.equal(ca.count('citadel_server_success_cert_issuance_count'), 0);
});

test('a request that its key has not signed is refused', async (t) => {
  const folder = scratchFolder(t);
  const mine = derOf(makeCsr(folder));
  const theirs = derOf(makeCsr(folder));
  // My signature under the key of somebody else: both have the same length up to the signature.
  const forged = Buffer.from(theirs);
  const at = mine.lastIndexOf(Buffer.from('06082a8648ce3d040302', 'hex'));
  mine.subarray(at).copy(forged, at, 0, Math.min(mine.length, forged.length) - at);
  for (const bytes of [forged, flipped(mine, 10), flipped(mine, mine.length - 3)]) {
    assert.throws(() => readSigningRequest(toPem('CERTIFICATE REQUEST', bytes)), { code: 'CSR_INVALID' });
  }
});

test('an uncommon form of a key is refused', (t) => {
  const folder = scratchFolder(t);
  openssl(folder, 'ecparam', '-name', 'prime256v1', '-genkey', '-param_enc', 'explicit', '-out', 'explicit.pem');
  makeCsr(folder);
  openssl(folder, 'ec', '-in', 'key.pem', '-conv_form', 'compressed', '-out', 'compressed.pem');
  for (const key of ['compressed.pem', 'explicit.pem']) {
    openssl(folder, 'req', '-new', '-config', 'req.cnf', '-key', key, '-subj', '/', '-out', 'odd.csr');
    const csr = readFileSync(`${folder}/odd.csr`, 'utf8');
    assert.throws(() => readSigningRequest(csr), { code: /^CSR_(INVALID|KEY_WEAK)$/ }, key);
  }
});

test('names of others in the request are refused, the own one is not', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  await ca.request({ csr: makeCsr(folder, { names: `critical,URI:${WEB}` }), ...impersonating(WEB) });
  for (const names of [
    'URI:spiffe://cluster.local/ns/default/sa/admin',
    `URI:${WEB},URI:spiffe://cluster.local/ns/default/sa/admin`,
    `URI:${WEB},DNS:istiod.istio-system.svc`,
    'IP:10.0.0.1',
    `DNS:${WEB}`,
    `email:${WEB}`,
  ]) {
    const request = ca.request({ csr: makeCsr(folder, { names }), ...impersonating(WEB) });
    await assert.rejects(request, { code: 3, details: /it asks for other names than spiffe:/ }, names);
  }
});

test('other extensions of the request are left out of the certificate', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const more = ['-addext', 'basicConstraints=CA:TRUE', '-addext', 'keyUsage=keyCertSign'];
  const [leaf] = await ca.request({ csr: makeCsr(folder, { arguments: more }), ...impersonating(WEB) });
  assert.equal(new X509Certificate(leaf!).ca, false);
});

test('garbage is refused as such', async (t) => {
  const ca = await caUnderTest(t);
  const good = makeCsr(scratchFolder(t));
  const bytes = derOf(good);
  const garbage: Record<string, string> = {
    nothing: '',
    'no PEM': 'hello',
    'PEM of nothing': '-----BEGIN CERTIFICATE REQUEST-----\n\n-----END CERTIFICATE REQUEST-----\n',
    'PEM of garbage': toPem('CERTIFICATE REQUEST', Buffer.from('garbage')),
    'a certificate': toPem('CERTIFICATE', bytes),
    'two requests': good + good,
    'text before it': `x${good}`,
    'a request that is cut': toPem('CERTIFICATE REQUEST', bytes.subarray(0, -10)),
    'a request with more after it': toPem('CERTIFICATE REQUEST', Buffer.concat([bytes, Buffer.of(5, 0)])),
    'a huge one': toPem('CERTIFICATE REQUEST', Buffer.alloc(30_000, 0x30)),
  };
  for (const [what, csr] of Object.entries(garbage)) {
    const refused = { code: 3, details: /^CSR signing error \(the certificate request cannot be used: / };
    await assert.rejects(ca.request({ csr, ...impersonating(WEB) }), refused, what);
  }
  const tooLong = toPem('CERTIFICATE REQUEST', Buffer.alloc(100_000));
  await assert.rejects(ca.request({ csr: tooLong, ...impersonating(WEB) }), { code: 8 });
  // It goes on serving.
  await ca.request({ csr: good, ...impersonating(WEB) });
});

test('whatever is changed in a request, it is read or refused in words', async () => {
  const { privateKey, publicKey } = await generateWorkloadKey();
  const bytes = await signCertificateRequest(privateKey, WEB, publicKey);
  for (const at of bytes.keys()) {
    const request = toPem('CERTIFICATE REQUEST', flipped(bytes, at));
    assert.throws(() => readSigningRequest(request), { code: /^CSR_/ }, `octet ${at}`);
  }
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(20), (at, change, cut) => {
      const changed = Buffer.from(bytes.subarray(0, bytes.length - cut));
      if (at < changed.length) changed[at]! ^= change;
      if (changed.equals(bytes)) return;
      // No change survives the signature.
      assert.throws(() => readSigningRequest(toPem('CERTIFICATE REQUEST', changed)), { code: /^CSR_/ });
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (garbage) => {
      assert.throws(() => readSigningRequest(toPem('CERTIFICATE REQUEST', garbage)), { code: /^CSR_/ });
    }),
  );
});

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
}

function flipped(bytes: Buffer, at: number): Buffer {
  const other = Buffer.from(bytes);
  other[at]! ^= 1;
  return other;
}

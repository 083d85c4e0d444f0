import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isPlugged, openPluggedCa } from '../../../src/control/ca/plugged-ca.ts';
import { splitCertificates } from '../../../src/identity/pem.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { eventually } from '../../cni/support/eventually.ts';
import { layOut } from '../../identity/ca-folders.ts';
import { makeIntermediate, makeRoot, openssl } from '../../identity/openssl.ts';
import { scratchFolder } from '../../identity/scratch.ts';

async function open(t: TestContext, dir: string) {
  const lines: string[] = [];
  const log = createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) });
  const source = await openPluggedCa({ dir, create: null, log, interval: 20 });
  t.after(() => source.close());
  let changes = 0;
  source.onChange(() => changes++);
  const has = (text: string) => eventually(`the log says ${text}`, () => lines.some((line) => line.includes(text)));
  return { source, lines, has, changes: () => changes };
}

test('both layouts are read', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  makeIntermediate(folder, 'signer', 'root');
  const text = (name: string) => readFileSync(join(folder, name), 'utf8');
  const istio = layOut(folder, {
    ...{ key: ['signer.key'], cert: ['signer.crt'], chain: ['signer.crt', 'root.crt'], roots: ['root.crt'] },
  });
  const kubernetes = scratchFolder(t);
  writeFileSync(join(kubernetes, 'tls.crt'), text('signer.crt'));
  await assert.rejects(open(t, kubernetes), { code: 'CA_FOLDER_INCOMPLETE', message: /tls\.crt but not tls\.key/ });
  writeFileSync(join(kubernetes, 'tls.key'), text('signer.key'));
  await assert.rejects(open(t, kubernetes), { code: 'CA_FOLDER_INCOMPLETE', message: /tls\.crt but not ca\.crt/ });
  writeFileSync(join(kubernetes, 'ca.crt'), text('root.crt'));
  const signer = new X509Certificate(text('signer.crt')).toString();
  for (const dir of [istio, kubernetes]) {
    const { source } = await open(t, dir);
    assert.equal(source.material()!.intermediatesPem, signer);
    assert.equal(source.material()!.rootsPem, new X509Certificate(text('root.crt')).toString());
    assert.equal(await isPlugged(dir), true);
  }
  assert.equal(await isPlugged(scratchFolder(t)), false);
  assert.equal(await isPlugged('/nonexistent'), false);
  await assert.rejects(isPlugged(join(folder, 'root.crt')), { code: 'CA_FOLDER_UNUSABLE' });
  await assert.rejects(open(t, scratchFolder(t)), { code: 'CA_FOLDER_INCOMPLETE' });
});

test('a new signing certificate under a trusted root takes the place of the old one', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  makeIntermediate(folder, 'old', 'root');
  makeIntermediate(folder, 'new', 'root');
  const text = (name: string) => readFileSync(join(folder, name), 'utf8');
  const dir = layOut(folder, { key: ['old.key'], cert: ['old.crt'], chain: ['old.crt'], roots: ['root.crt'] });
  const { source, has, changes } = await open(t, dir);
  const before = source.material();
  // Half of it is none: the certificate of before goes on signing.
  writeFileSync(join(dir, 'ca-cert.pem'), text('new.crt'));
  await has('ca-key.pem does not belong to ca-cert.pem');
  assert.equal(source.material(), before);
  writeFileSync(join(dir, 'ca-key.pem'), text('new.key'));
  writeFileSync(join(dir, 'cert-chain.pem'), text('new.crt'));
  // Before, for a moment, perhaps beside the old one: files are read one after the other.
  const signer = new X509Certificate(text('new.crt')).toString();
  await eventually('it is used', () => source.material()!.intermediatesPem === signer);
  assert.ok(changes() > 0);
});

test('a certificate above the signing one that TLS does not accept is refused, and that of before goes on signing', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  makeIntermediate(folder, 'upper', 'root', {
    key: (at, file) =>
      void openssl(at, 'genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024', '-out', file),
  });
  makeIntermediate(folder, 'lower', 'upper');
  const text = (name: string) => readFileSync(join(folder, name), 'utf8');
  const weak = layOut(folder, {
    ...{ key: ['lower.key'], cert: ['lower.crt'], chain: ['lower.crt', 'upper.crt'], roots: ['root.crt'] },
  });
  await assert.rejects(open(t, weak), {
    code: 'CA_INVALID',
    message: /cert-chain\.pem .*TLS does not accept.*key too small/,
  });
  rmSync(weak, { recursive: true });
  const dir = layOut(folder, { key: ['root.key'], cert: ['root.crt'], chain: ['root.crt'], roots: ['root.crt'] });
  const { source, has } = await open(t, dir);
  const before = source.material();
  writeFileSync(join(dir, 'ca-key.pem'), text('lower.key'));
  writeFileSync(join(dir, 'cert-chain.pem'), text('lower.crt') + text('upper.crt'));
  writeFileSync(join(dir, 'ca-cert.pem'), text('lower.crt'));
  await has('key too small');
  assert.equal(source.material(), before);
});

test('a root that agents do not trust yet is refused, until it was published before', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'old');
  makeRoot(folder, 'new');
  const text = (...names: string[]) => names.map((name) => readFileSync(join(folder, name), 'utf8')).join('');
  const dir = layOut(folder, { key: ['old.key'], cert: ['old.crt'], chain: ['old.crt'], roots: ['old.crt'] });
  const { source, has } = await open(t, dir);
  const put = (files: Record<string, string>) => {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content);
  };
  const signsWith = (name: string) => () => source.material()!.anchor.fingerprint256 === fingerprint(name);
  const fingerprint = (name: string) => new X509Certificate(text(name)).fingerprint256;
  const next = { 'ca-cert.pem': text('new.crt'), 'ca-key.pem': text('new.key'), 'cert-chain.pem': text('new.crt') };

  put({ ...next, 'root-cert.pem': text('new.crt') });
  await has('a root that agents do not trust yet');
  assert.ok(signsWith('old.crt')());

  put({ 'ca-cert.pem': text('old.crt'), 'ca-key.pem': text('old.key'), 'cert-chain.pem': text('old.crt') });
  put({ 'root-cert.pem': text('old.crt', 'new.crt') });
  await eventually('both are published', () => splitCertificates(source.material()!.rootsPem).length === 2);
  assert.ok(signsWith('old.crt')());
  put(next);
  await eventually('the new one signs', signsWith('new.crt'));
  put({ 'root-cert.pem': text('new.crt') });
  await eventually('the old one is forgotten', () => splitCertificates(source.material()!.rootsPem).length === 1);
});

test('a folder that is taken away is not made anew, and the CA of before goes on signing', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  const dir = layOut(folder, { key: ['root.key'], cert: ['root.crt'], chain: ['root.crt'], roots: ['root.crt'] });
  const { source, has } = await open(t, dir);
  const before = source.material();
  renameSync(dir, `${dir}.away`);
  await has('ENOENT');
  assert.equal(existsSync(dir), false);
  assert.equal(source.material(), before);
});

test('revocation lists beside the CA are passed on', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  const dir = layOut(folder, { key: ['root.key'], cert: ['root.crt'], chain: ['root.crt'], roots: ['root.crt'] });
  const { source, changes } = await open(t, dir);
  assert.equal(source.revocationLists(), null);
  // Not in the folder, so that it is not read before it is written.
  writeFileSync(join(folder, 'ca-crl.pem'), 'lists');
  renameSync(join(folder, 'ca-crl.pem'), join(dir, 'ca-crl.pem'));
  await eventually('they are known', () => source.revocationLists() === 'lists');
  rmSync(join(dir, 'ca-crl.pem'));
  await eventually('they are gone', () => source.revocationLists() === null);
  assert.equal(changes(), 2);
});

import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { CaFiles } from '../../src/identity/ca-folder.ts';
import { layOut, openCa } from './ca-folders.ts';
import { type CaRequest, makeIntermediate, makeRoot, openssl } from './openssl.ts';
import { scratchFolder } from './scratch.ts';

const ROOT: Readonly<Record<keyof CaFiles, string[]>> = {
  key: ['root.key'],
  cert: ['root.crt'],
  chain: ['root.crt'],
  roots: ['root.crt'],
};
const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';

const missing: [absent: (keyof CaFiles)[], message: RegExp][] = [
  [['key'], /has ca-cert\.pem, cert-chain\.pem, root-cert\.pem but not ca-key\.pem; give it all of/],
  [['cert', 'chain', 'roots'], /has ca-key\.pem but not ca-cert\.pem, cert-chain\.pem, root-cert\.pem;/],
  [['roots'], /but not root-cert\.pem;/],
];

for (const [absent, message] of missing) {
  test(`a folder without its ${absent.join(', ')} is refused, not completed`, async (t) => {
    const folder = scratchFolder(t);
    makeRoot(folder, 'root');
    const dir = layOut(folder, { ...ROOT, ...Object.fromEntries(absent.map((file) => [file, []])) });
    await assert.rejects(openCa(dir), { code: 'CA_FOLDER_INCOMPLETE', message });
  });
}

const broken: [what: string, prepare: (folder: string) => Partial<typeof ROOT>, message: RegExp][] = [
  [
    'a key of another certificate',
    (folder) => {
      makeRoot(folder, 'other');
      return { key: ['other.key'] };
    },
    /ca-key\.pem does not belong to ca-cert\.pem/,
  ],
  [
    'a signing certificate that is not a CA’s',
    remake({ extensions: 'basicConstraints=critical,CA:FALSE\n' }),
    /ca-cert\.pem is not the certificate of a CA \(CA:FALSE\)/,
  ],
  [
    'a key usage without signing',
    remake({ extensions: 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign\n' }),
    /ca-cert\.pem has a key usage without certificate signing/,
  ],
  [
    'roots that the CA does not come from',
    (folder) => {
      makeRoot(folder, 'other', { subject: '/O=test/CN=root' });
      return { roots: ['other.crt'] };
    },
    /ca-cert\.pem is not signed by a root of root-cert\.pem, nor through cert-chain\.pem/,
  ],
  [
    'a missing intermediate',
    (folder) => {
      makeIntermediate(folder, 'upper', 'root');
      makeIntermediate(folder, 'lower', 'upper');
      return { key: ['lower.key'], cert: ['lower.crt'], chain: ['lower.crt'] };
    },
    /ca-cert\.pem is not signed by a root/,
  ],
  ['an encrypted key', (folder) => encrypt(folder), /ca-key\.pem is encrypted; it is needed without a passphrase/],
  ['text for a key', text('key', 'not a key\n'), /ca-key\.pem is not a private key in PEM/],
  ['text for a certificate', text('cert', 'not a certificate\n'), /ca-cert\.pem has no PEM certificate/],
  [
    'a damaged root',
    text('roots', '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'),
    /root-cert\.pem has a certificate that cannot be read/,
  ],
  ['an empty chain', text('chain', ''), /cert-chain\.pem has no PEM certificate/],
  [
    'an Ed25519 key',
    remake({ key: generate('ED25519') }),
    /a kind that is not supported \(ed25519\); needed is RSA, or EC on P-256 or P-384/,
  ],
  ['a P-521 key', remake({ key: generate('EC', 'ec_paramgen_curve:P-521') }), /not supported \(ec secp521r1\)/],
  ['a short RSA key', remake({ key: generate('RSA', 'rsa_keygen_bits:1024') }), /RSA key of fewer than 2048 bits/],
];

for (const [what, prepare, message] of broken) {
  test(`refused: ${what}`, async (t) => {
    const folder = scratchFolder(t);
    makeRoot(folder, 'root');
    const dir = layOut(folder, { ...ROOT, ...prepare(folder) });
    await assert.rejects(openCa(dir), (error: Error & { code: string }) => {
      assert.equal(error.code, 'CA_INVALID');
      assert.ok(error.message.startsWith(`the CA in ${dir} cannot be used: `));
      assert.match(error.message, message);
      return true;
    });
  });
}

test('an expired CA, and one that is not valid yet, say so with this node’s time', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root', { days: 10 });
  const dir = layOut(folder, ROOT);
  const day = 86_400_000;
  const later = () => Date.now() + 11 * day;
  const earlier = () => Date.now() - day;
  const time = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.source;
  const clock = new RegExp(`${time}.*; this node's clock says ${time}`);
  await assert.rejects(openCa(dir, { now: later }), { code: 'CA_EXPIRED', message: clock });
  await assert.rejects(openCa(dir, { now: earlier }), { code: 'CA_NOT_YET_VALID', message: clock });
});

test('a CA that expires while the agent runs signs no more', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root', { days: 10 });
  let now = Date.now();
  const ca = await openCa(layOut(folder, ROOT), { now: () => now });
  await ca.sign(IDENTITY);
  now += 11 * 86_400_000;
  await assert.rejects(ca.sign(IDENTITY), { code: 'CA_EXPIRED' });
});

test('a folder that cannot be used at all is named', async (t) => {
  const file = join(scratchFolder(t), 'file');
  writeFileSync(file, '');
  await assert.rejects(openCa(file), { code: 'CA_FOLDER_UNUSABLE', message: /\/file cannot be used: / });
  await assert.rejects(openCa('/proc/nothing'), { code: 'CA_FOLDER_UNUSABLE' });
});

test('a key that may not be read is named', {
  skip: process.getuid?.() === 0 && 'root may read anything',
}, async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  const dir = layOut(folder, ROOT);
  chmodSync(join(dir, 'ca-key.pem'), 0);
  await assert.rejects(openCa(dir), { code: 'CA_FOLDER_UNUSABLE', message: /EACCES/ });
});

test('a directory in the place of a file is named', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  const dir = layOut(folder, { ...ROOT, key: [] });
  mkdirSync(join(dir, 'ca-key.pem'));
  await assert.rejects(openCa(dir), { code: 'CA_FOLDER_UNUSABLE', message: /EISDIR/ });
});

test('no error shows key material', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root');
  makeRoot(folder, 'other');
  const key = readFileSync(join(folder, 'other.key'), 'utf8');
  const dir = layOut(folder, { ...ROOT, key: ['other.key'] });
  const error: Error = await openCa(dir).then(
    () => assert.fail('opened'),
    (thrown) => thrown,
  );
  const shown = `${error.stack}${JSON.stringify(error)}${(error.cause as Error | undefined)?.stack}`;
  for (const line of key.split('\n').slice(1, -2)) assert.ok(!shown.includes(line));
});

function remake(request: CaRequest): (folder: string) => Partial<typeof ROOT> {
  return (folder) => {
    makeRoot(folder, 'root', request);
    return {};
  };
}

function generate(algorithm: string, ...options: string[]): (folder: string, file: string) => void {
  return (folder, file) => {
    const args = options.flatMap((option) => ['-pkeyopt', option]);
    openssl(folder, 'genpkey', '-algorithm', algorithm, ...args, '-out', file);
  };
}

function encrypt(folder: string): Partial<typeof ROOT> {
  openssl(folder, 'pkcs8', '-topk8', '-in', 'root.key', '-passout', 'pass:x', '-out', 'encrypted.key');
  return { key: ['encrypted.key'] };
}

function text(file: keyof CaFiles, content: string): (folder: string) => Partial<typeof ROOT> {
  return (folder) => {
    writeFileSync(join(folder, 'text'), content);
    return { [file]: ['text'] };
  };
}

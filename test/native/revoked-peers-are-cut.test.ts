import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import type { ChannelLoop, TlsMaterial } from '../../native/channel.ts';
import { readCrls, revokedAmong } from '../../native/crl.ts';
import { makeIntermediate, makeRoot, openssl } from '../identity/openssl.ts';
import { DEFAULT_GROUPS } from './authority.ts';
import { CLIENT_ID, SERVER_ID, startedTlsPair } from './secure-side.ts';
import { nextTurns, testLoop } from './side.ts';

const REVOKED = 'connection closed: peer certificate revoked by CRL';

/** root → signer → leaves, made and revoked by the stock openssl. */
const folder = mkdtempSync(join(tmpdir(), 'culvert-crl-'));
after(() => rmSync(folder, { recursive: true }));
const read = (name: string) => readFileSync(join(folder, name), 'utf8');

before(() => {
  const usages =
    'keyUsage=critical,keyCertSign,cRLSign\nbasicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n';
  makeRoot(folder, 'root', { extensions: usages });
  makeIntermediate(folder, 'signer', 'root', { extensions: usages });
  makeIntermediate(folder, 'other', 'root', { extensions: usages });
  // The same name with another key, as after a restore from nothing.
  makeRoot(folder, 'impostor', { extensions: usages, subject: '/O=test/CN=signer' });
  const leaf = (name: string, uri: string, by: string) =>
    makeIntermediate(folder, name, by, { extensions: `subjectAltName=critical,URI:${uri}\n` });
  leaf('client', CLIENT_ID, 'signer');
  leaf('sibling', CLIENT_ID, 'signer');
  leaf('stranger', CLIENT_ID, 'other');
  leaf('server', SERVER_ID, 'signer');
});

function material(name: string, by = 'signer'): TlsMaterial {
  return {
    chainPem: read(`${name}.crt`) + read(`${by}.crt`),
    key: createPrivateKey(read(`${name}.key`)),
    rootsPem: read('root.crt'),
    groups: DEFAULT_GROUPS,
    keyLogPath: '',
    tls12: false,
  };
}

/** The list of a CA that revokes some certificates, PEM. */
function crl(by: string, names: readonly string[], form: 'PEM' | 'DER' = 'PEM', days = 30): Buffer {
  const index = names
    .map((name) => {
      const serial = new X509Certificate(read(`${name}.crt`)).serialNumber;
      return `R\t490101000000Z\t260101000000Z\t${serial}\tunknown\t/CN=${name}\n`;
    })
    .join('');
  writeFileSync(join(folder, 'index.txt'), index);
  writeFileSync(
    join(folder, 'crl.cnf'),
    `[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ncertificate=${by}.crt\nprivate_key=${by}.key\ndefault_md=sha256\n`,
  );
  const times =
    days > 0
      ? ['-crldays', String(days)]
      : ['-crl_lastupdate', '20200101000000Z', '-crl_nextupdate', '20200201000000Z'];
  openssl(folder, 'ca', '-gencrl', '-config', 'crl.cnf', ...times, '-out', 'list.pem');
  openssl(folder, 'crl', '-in', 'list.pem', '-outform', form, '-out', 'list');
  return readFileSync(join(folder, 'list'));
}

async function connected(loop: ChannelLoop, name: string, by = 'signer') {
  const pair = await startedTlsPair(loop, material(name, by), material('server'));
  await Promise.all([pair.client.told('secured'), pair.server.told('secured')]);
  return pair;
}

function revokingLoop(t: TestContext): ChannelLoop {
  const loop = testLoop(t);
  loop.setRevocations(new Uint8Array());
  return loop;
}

for (const [revoked, role] of [
  ['client', 'server'],
  ['server', 'client'],
] as const) {
  test(`a ${revoked} whose certificate is revoked is refused in the handshake, and told why`, async (t) => {
    const loop = revokingLoop(t);
    loop.setRevocations(crl('signer', [revoked]));
    const pair = await startedTlsPair(loop, material('client'), material('server'));
    assert.equal(await pair[role].told('failed'), `failed CERT_REVOKED: tls handshake error: ${REVOKED}`);
    assert.match(await pair[revoked].told('failed'), /^failed TLS: .*alert certificate revoked/i);
  });
}

test('a list that revokes a connected peer cuts that connection and no other', async (t) => {
  const loop = revokingLoop(t);
  const cut = await connected(loop, 'client');
  const sibling = await connected(loop, 'sibling');
  const stranger = await connected(loop, 'stranger', 'other');
  loop.setRevocations(crl('signer', ['client']));
  assert.equal(await cut.server.told('failed'), `failed CERT_REVOKED: ${REVOKED}`);
  assert.match(await cut.client.told('failed'), /the peer sent alert certificate revoked/);
  for (const { client, server } of [sibling, stranger]) {
    client.send('still here');
    await server.until(() => server.text === 'still here');
    assert.deepEqual(server.log, ['secured']);
  }
});

test('a revoked signer cuts all that it has signed', async (t) => {
  const loop = revokingLoop(t);
  const signed = await connected(loop, 'client');
  const stranger = await connected(loop, 'stranger', 'other');
  loop.setRevocations(crl('root', ['signer']));
  // Both ends are of this loop, and both peers are signed by it.
  await Promise.all([signed.server.told('failed CERT_REVOKED'), signed.client.told('failed CERT_REVOKED')]);
  await stranger.client.told('failed CERT_REVOKED');
  assert.deepEqual(
    stranger.server.log.filter((event) => event.includes('CERT_REVOKED')),
    [],
  );
});

test('lists in DER, several in one file, and other blocks between them are understood', async (t) => {
  const loop = revokingLoop(t);
  loop.setRevocations(crl('signer', ['client'], 'DER'));
  const [first] = [await startedTlsPair(loop, material('client'), material('server'))];
  await first!.server.told('failed CERT_REVOKED');
  const bundle = Buffer.concat([crl('other', []), Buffer.from(read('root.crt')), crl('signer', ['client'])]);
  assert.deepEqual(
    (await readCrls(bundle)).map(({ issuer, revoked }) => [issuer, revoked]),
    [
      ['CN=other,O=test', 0],
      ['CN=signer,O=test', 1],
    ],
  );
  loop.setRevocations(bundle);
  const second = await startedTlsPair(loop, material('client'), material('server'));
  await second.server.told('failed CERT_REVOKED');
});

test('a list that is overdue still revokes, and one taken back does not', async (t) => {
  const loop = revokingLoop(t);
  const overdue = crl('signer', ['client'], 'PEM', 0);
  assert.equal((await readCrls(overdue))[0]!.nextUpdate, Date.UTC(2020, 1, 1));
  loop.setRevocations(overdue);
  await (await startedTlsPair(loop, material('client'), material('server'))).server.told('failed CERT_REVOKED');
  loop.setRevocations(new Uint8Array());
  await connected(loop, 'client');
});

test('a list counts only when the signer of the certificate has signed it', async (t) => {
  const loop = revokingLoop(t);
  const { client, server } = await connected(loop, 'client');
  const forged = crl('impostor', ['client']);
  assert.equal((await readCrls(forged))[0]!.issuer, 'CN=signer,O=test');
  loop.setRevocations(forged);
  await nextTurns();
  client.send('still here');
  await server.until(() => server.text === 'still here');
  await connected(loop, 'client');
});

test('what cannot be read is refused with a reason, and the lists of before stay', async (t) => {
  const loop = revokingLoop(t);
  loop.setRevocations(crl('signer', ['client']));
  const good = crl('signer', ['client']).toString();
  for (const [text, error] of [
    ['nonsense', /neither PEM nor a revocation list in DER/],
    [good.replace(/\n(.{20})/, '\n!!!!$1'), /PEM block 1 is damaged/],
    ['-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n', /revocation list 1 cannot be read/],
    [`${good}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n`, /revocation list 2 cannot be read/],
  ] as const) {
    assert.throws(() => loop.setRevocations(Buffer.from(text)), { code: 'CRL_INVALID', message: error });
    await assert.rejects(readCrls(Buffer.from(text)), error);
  }
  await (await startedTlsPair(loop, material('client'), material('server'))).server.told('failed CERT_REVOKED');
  assert.deepEqual(await readCrls(new Uint8Array()), []);
});

test('chains that are held here can be compared with a list too', () => {
  const chains = ['client', 'sibling'].map((name) => [material(name).chainPem, read('root.crt')] as const);
  const stranger = [material('stranger', 'other').chainPem, read('root.crt')] as const;
  assert.deepEqual(revokedAmong(crl('signer', ['client']), [...chains, stranger]), [true, false, false]);
  assert.deepEqual(revokedAmong(crl('root', ['signer']), [...chains, stranger]), [true, true, false]);
  assert.deepEqual(revokedAmong(crl('impostor', ['client']), chains), [false, false]);
  assert.deepEqual(revokedAmong(new Uint8Array(), chains), [false, false]);
});

test('ten thousand revoked certificates do not hold up a handshake or the check of live connections', async (t) => {
  const loop = revokingLoop(t);
  const index = Array.from(
    { length: 10_000 },
    (_, i) => `R\t490101000000Z\t260101000000Z\t${(0x100000 + i).toString(16)}\tunknown\t/CN=x\n`,
  );
  crl('signer', []);
  writeFileSync(join(folder, 'index.txt'), index.join(''));
  openssl(folder, 'ca', '-gencrl', '-config', 'crl.cnf', '-crldays', '30', '-out', 'big.pem');
  const { server } = await connected(loop, 'client');
  loop.setRevocations(readFileSync(join(folder, 'big.pem')));
  await connected(loop, 'sibling');
  assert.deepEqual(server.log, ['secured']);
});

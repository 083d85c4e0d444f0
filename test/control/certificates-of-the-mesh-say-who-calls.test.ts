import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { Client, credentials } from '@grpc/grpc-js';
import { createAuthentication } from '../../src/control/authentication.ts';
import { revocationsOf } from '../../src/control/ca/revocations.ts';
import { decodeCertificateResponse } from '../../src/identity/ca-messages.ts';
import { makeIntermediate, makeRevocationList, makeRoot, openssl } from '../identity/openssl.ts';
import { scratchFolder } from '../identity/scratch.ts';
import { caUnderTest, WEB } from './ca/mesh-ca-under-test.ts';
import { encodeRequest, impersonating, makeCsr } from './ca/request.ts';

const PEER = { address: '10.0.0.1:1234', certificate: null };
const ME = 'spiffe://cluster.local/ns/prod/sa/me';
const LEAF = `subjectAltName=URI:${ME}\nextendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n`;

test('a certificate of the mesh renews itself, and speaks for nobody else', async (t) => {
  const ca = await caUnderTest(t);
  const folder = scratchFolder(t);
  const csr = makeCsr(folder);
  const chain = await ca.request({ csr, ...impersonating(WEB) });
  const key = openssl(folder, 'pkey', '-in', 'key.pem');
  const client = new Client(
    ca.address.replace('https://', ''),
    credentials.createSsl(Buffer.from(ca.rootsPem()), Buffer.from(key), Buffer.from(chain[0]!)),
    { 'grpc.ssl_target_name_override': 'culvert-control.culvert-system.svc' },
  );
  t.after(() => client.close());
  const ask = (fields: Parameters<typeof encodeRequest>[0]) =>
    new Promise<string[]>((resolve, reject) => {
      const raw = (bytes: Buffer) => bytes;
      const path = '/istio.v1.auth.IstioCertificateService/CreateCertificate';
      client.makeUnaryRequest(path, raw, raw, encodeRequest(fields), (error, answer) =>
        error === null ? resolve(decodeCertificateResponse(answer!)) : reject(error),
      );
    });
  const [leaf] = await ask({ csr });
  assert.equal(new X509Certificate(leaf!).subjectAltName, `URI:${WEB}`);
  await assert.rejects(ask({ csr, ...impersonating(WEB) }), { code: 16 });
});

test('a certificate counts only while it, and its root, are valid here', async (t) => {
  const folder = scratchFolder(t);
  const read = (name: string) => new X509Certificate(openssl(folder, 'x509', '-in', `${name}.crt`));
  makeRoot(folder, 'root');
  makeRoot(folder, 'other');
  makeIntermediate(folder, 'good', 'root', { extensions: LEAF, days: 1 });
  const cases: Readonly<Record<string, string>> = {
    'two identities': LEAF.replace(ME, `${ME},URI:spiffe://cluster.local/ns/prod/sa/you`),
    'a DNS name as well': LEAF.replace(ME, `${ME},DNS:web.prod`),
    'no identity': LEAF.replace(`URI:${ME}`, 'DNS:web.prod'),
    'a name that pretends to be several': `extendedKeyUsage=clientAuth\nsubjectAltName=@names\n[names]\nDNS.1=a, URI:${ME}\n`,
    'another trust domain': LEAF.replace('cluster.local', 'other.mesh'),
    'something that is no identity': LEAF.replace(ME, 'spiffe://cluster.local/prod'),
    'no use for clients': LEAF.replace('clientAuth', 'serverAuth'),
    'no extended key usage': LEAF.replace('extendedKeyUsage=clientAuth\n', ''),
    'a CA of its own': `${LEAF.replace('digitalSignature', 'digitalSignature,keyCertSign')}basicConstraints=critical,CA:TRUE\n`,
  };
  let now = Date.now();
  let isRevoked = revocationsOf(null);
  const listOf = (issuer: string, ...revoked: string[]) =>
    makeRevocationList(folder, { cert: `${issuer}.crt`, key: `${issuer}.key` }, revoked.map(read));
  let roots = [read('root')];
  const authenticate = createAuthentication({
    tokens: { review: async () => ({ refused: 'no token is known' }) },
    ...{
      roots: () => roots,
      isRevoked: (it) => isRevoked(it),
      trustDomain: 'cluster.local',
      clusterId: 'Kubernetes',
      now: () => now,
    },
  });
  const good = { ...PEER, certificate: read('good') };
  const refused = { code: 'UNAUTHENTICATED', message: 'request authenticate failure' };
  const me = { namespace: 'prod', serviceAccount: 'me', pod: null, node: null };
  assert.deepEqual(await authenticate({}, good), me);

  for (const [what, extensions] of Object.entries(cases)) {
    makeIntermediate(folder, 'bad', 'root', { extensions });
    await assert.rejects(authenticate({}, { ...PEER, certificate: read('bad') }), refused, what);
  }
  makeIntermediate(folder, 'foreign', 'other', { extensions: LEAF });
  await assert.rejects(authenticate({}, { ...PEER, certificate: read('foreign') }), refused);
  await assert.rejects(authenticate({}, PEER), refused);

  roots = [read('other')];
  await assert.rejects(authenticate({}, good), refused);
  roots = [read('other'), read('root')];
  assert.deepEqual(await authenticate({}, good), me);

  // What an operator has revoked, and what cannot be told.
  makeIntermediate(folder, 'revoked', 'root', { extensions: LEAF });
  const list = listOf('root', 'revoked');
  isRevoked = revocationsOf(list + listOf('other'));
  await assert.rejects(authenticate({}, { ...PEER, certificate: read('revoked') }), refused);
  assert.deepEqual(await authenticate({}, good), me);
  isRevoked = revocationsOf(listOf('other', 'good'));
  assert.deepEqual(await authenticate({}, good), me, 'the list of another issuer');
  const cut = list.replace(/\n.{64}\n/, '\n');
  for (const unreadable of ['garbage', cut]) {
    isRevoked = revocationsOf(unreadable);
    await assert.rejects(authenticate({}, good), refused);
  }
  isRevoked = revocationsOf('');
  assert.deepEqual(await authenticate({}, good), me);
  now += 3 * 86_400_000;
  await assert.rejects(authenticate({}, good), refused);
});

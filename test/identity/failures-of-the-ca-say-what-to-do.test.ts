import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, type TestContext, test } from 'node:test';
import { Secret } from '../../src/config/secret.ts';
import type { ControlPlaneServer } from '../../src/control-plane/grpc.ts';
import { createCertificateManager } from '../../src/identity/manager.ts';
import { freePort } from '../support/free-ports.ts';
import { type Behaviour, makeTestCa, startTestCa, type TestCa, tokenUntil } from '../support/istio-ca-server.ts';
import { clientOf, IDENTITY, literal, serverOf, testCa } from './istio-ca-under-test.ts';
import { openssl } from './openssl.ts';
import { scratchFolder } from './scratch.ts';

interface Failure {
  readonly name: string;
  /** What is wrong. */
  readonly arrange: (t: TestContext, ca: TestCa) => ControlPlaneServer | Promise<ControlPlaneServer>;
  /** What the CA does once it has issued a certificate: the connection is there, however long it took. */
  readonly afterwards?: Behaviour;
  /** How long the client waits, where that is what ends the wait, in ms. */
  readonly patience?: number;
  readonly code: string;
  readonly says: RegExp;
}

const HOUR = 3_600_000;
const UNAUTHENTICATED = 16;

function answering(behaviour: Behaviour, changes: Partial<ControlPlaneServer> = {}): Failure['arrange'] {
  return (_, ca) => {
    ca.behave(behaviour);
    return serverOf(ca, changes);
  };
}

/** Issues for other than what was asked, by changing the answer. */
function saying(chain: Extract<Behaviour, { kind: 'say' }>['chain']): Failure['arrange'] {
  return answering({ kind: 'say', chain });
}

function listening(t: TestContext, onSocket: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onSocket(socket);
  });
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return new Promise((resolve) =>
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)),
  );
}

async function withServerCertificate(t: TestContext, ...dates: string[]): Promise<ControlPlaneServer> {
  const folder = scratchFolder(t);
  makeTestCa(folder);
  writeFileSync(join(folder, 'index.txt'), '');
  writeFileSync(join(folder, 'ca.cnf'), CA_CONFIG);
  openssl(folder, 'ca', '-batch', '-config', 'ca.cnf', '-in', 'server.csr', '-out', 'server.crt', '-notext', ...dates);
  return serverOf(await testCa(t, { folder }));
}

const CA_CONFIG = `[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\nnew_certs_dir=.\ncertificate=root.crt\nprivate_key=root.key
default_md=sha256\npolicy=any\nrand_serial=yes\nx509_extensions=names\n[any]\norganizationName=optional\ncommonName=optional
[names]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n`;

const failures: readonly Failure[] = [
  {
    name: 'a name that does not exist',
    arrange: (_, ca) => serverOf(ca, { address: 'https://istiod.culvert-test.invalid:15012' }),
    code: 'CA_UNREACHABLE',
    says: /the name of the CA, istiod\.culvert-test\.invalid:15012, cannot be resolved: check CA_ADDRESS/,
  },
  {
    name: 'nobody listening',
    arrange: async (_, ca) => serverOf(ca, { address: `https://127.0.0.1:${await freePort()}` }),
    code: 'CA_UNREACHABLE',
    says: /nothing listens at the CA's address 127\.0\.0\.1:\d+: check CA_ADDRESS, and that istiod is running/,
  },
  {
    name: 'a server that never says anything',
    arrange: async (t, ca) => serverOf(ca, { address: `https://127.0.0.1:${await listening(t, () => {})}` }),
    patience: 2500,
    code: 'CA_UNREACHABLE',
    says: /no connection to the CA at 127\.0\.0\.1:\d+ within 2\.5 s: a NetworkPolicy or firewall/,
  },
  {
    name: 'a plain-text port',
    arrange: async (t, ca) =>
      serverOf(ca, {
        address: `https://127.0.0.1:${await listening(t, (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))}`,
      }),
    code: 'CA_UNREACHABLE',
    says: /does not speak TLS: CA_ADDRESS has to name the secure port \(15012 of istiod\)/,
  },
  {
    name: 'a server of another mesh',
    async arrange(t, ca) {
      const other = scratchFolder(t);
      makeTestCa(other);
      return serverOf({ address: ca.address, rootsFile: join(other, 'root.crt') });
    },
    code: 'CA_SERVER_NOT_TRUSTED',
    says: /is not trusted: its certificate is not signed by a root of CA_ROOT_CA \(.*root\.crt\), which may be of another mesh/,
  },
  {
    name: 'a server whose certificate has expired',
    arrange: (t) => withServerCertificate(t, '-startdate', '20200101000000Z', '-enddate', '20200102000000Z'),
    code: 'CA_SERVER_NOT_TRUSTED',
    says: /certificate of the CA server .* has expired; this node's clock says \d{4}-.*Z: if that is right, the server needs/,
  },
  {
    name: 'a server whose certificate is of the future',
    arrange: (t) => withServerCertificate(t, '-startdate', '20480101000000Z', '-enddate', '20490102000000Z'),
    code: 'CA_SERVER_NOT_TRUSTED',
    says: /certificate of the CA server .* is not valid yet; this node's clock says \d{4}-.*Z: check the clocks of both/,
  },
  {
    name: 'an expired token',
    arrange: answering(
      { kind: 'refuse', code: UNAUTHENTICATED, details: 'request authenticate failure' },
      { token: literal(tokenUntil(Date.UTC(2020, 0, 1))) },
    ),
    code: 'CA_TOKEN_REFUSED',
    says: /the token in AUTH_TOKEN \(the token itself, as it names no file\) expired at 2020-01-01T00:00:00\.000Z and this node's clock says \d{4}-/,
  },
  {
    name: 'a token that is not accepted',
    arrange: answering(
      { kind: 'refuse', code: UNAUTHENTICATED, details: 'request authenticate failure' },
      { token: literal(tokenUntil(Date.now() + HOUR)), clusterId: 'east' },
    ),
    code: 'CA_TOKEN_REFUSED',
    says: /the token in AUTH_TOKEN \(the token itself, as it names no file\) has to be of the service account of this agent \(istio-system\/ztunnel\), for audience istio-ca, and of the cluster "east"/,
  },
  {
    name: 'no token',
    arrange: answering({ kind: 'refuse', code: UNAUTHENTICATED, details: 'request authenticate failure' }),
    code: 'CA_TOKEN_REFUSED',
    says: /no token was sent: set AUTH_TOKEN, or mount a token with audience istio-ca/,
  },
  {
    name: 'an empty token file',
    arrange(t, ca) {
      const path = join(scratchFolder(t), 'token');
      writeFileSync(path, '\n');
      return serverOf(ca, { token: { kind: 'file', path } });
    },
    code: 'TOKEN_UNUSABLE',
    says: /token file exists, but was empty: .*token/,
  },
  {
    name: 'a token file that is gone',
    arrange: (t, ca) => serverOf(ca, { token: { kind: 'file', path: join(scratchFolder(t), 'token') } }),
    code: 'TOKEN_UNUSABLE',
    says: /the token cannot be read: ENOENT.*token/,
  },
  {
    name: 'a header value that cannot be sent',
    arrange: (_, ca) => serverOf(ca, { headers: [{ name: 'x-key', value: new Secret('hid\nden') }] }),
    code: 'HEADER_UNUSABLE',
    says: /CA_HEADER_X-KEY has characters that a header cannot carry/,
  },
  {
    name: 'refused impersonation',
    arrange: answering(
      { kind: 'refuse', code: UNAUTHENTICATED, details: 'request impersonation authentication failure' },
      { token: literal(tokenUntil(Date.now() + HOUR)) },
    ),
    code: 'CA_IMPERSONATION_REFUSED',
    says: /the service account of this agent \(istio-system\/ztunnel\) has to be in its CA_TRUSTED_NODE_ACCOUNTS, and the CA has to know a pod of that identity on this node/,
  },
  {
    name: 'a validity that is too long',
    arrange: answering({ kind: 'refuse', code: 3, details: 'requested TTL is greater than the max' }),
    code: 'CA_REFUSED',
    says: /SECRET_TTL may be more than its MAX_WORKLOAD_CERT_TTL \(requested TTL is greater/,
  },
  {
    name: 'too many requests',
    arrange: answering({ kind: 'refuse', code: 8, details: 'rate limit' }),
    code: 'CA_REFUSED',
    says: /refuses requests because it has too many/,
  },
  {
    name: 'a server that is no CA',
    arrange: answering({ kind: 'refuse', code: 12, details: 'unknown service' }),
    code: 'CA_REFUSED',
    says: /is not a CA of istio's kind: check CA_ADDRESS/,
  },
  {
    name: 'an error inside the CA',
    arrange: answering({ kind: 'refuse', code: 13, details: 'CSR signing error (expired)' }),
    code: 'CA_FAILED',
    says: /did not issue the certificate \(gRPC status 13\); its own log says why \(CSR signing error \(expired\)\)/,
  },
  {
    name: 'a CA that does not answer',
    arrange: answering({ kind: 'issue' }),
    afterwards: { kind: 'hang' },
    patience: 2500,
    code: 'CA_SLOW',
    says: /is connected but did not answer within 2\.5 s: it may be overloaded/,
  },
  {
    name: 'an answer that is no message',
    arrange: answering({ kind: 'raw', bytes: Buffer.from([0x0a, 0xff]) }),
    code: 'CA_ANSWER_INVALID',
    says: /the answer of the CA cannot be read/,
  },
  {
    name: 'an empty chain',
    arrange: saying(() => []),
    code: 'CA_ANSWER_INVALID',
    says: /chain returned from CA is empty for: spiffe:\/\/cluster\.local\/ns\/default\/sa\/web/,
  },
  {
    name: 'a chain without roots',
    arrange: saying(([leaf]) => [leaf!]),
    code: 'CA_ANSWER_INVALID',
    says: /invalid root certificate: no root certificate present/,
  },
  {
    name: 'a leaf that is no certificate',
    arrange: saying(([, ...rest]) => ['nonsense', ...rest]),
    code: 'CA_ANSWER_INVALID',
    says: /the certificate cannot be read/,
  },
  {
    name: 'roots that are no certificates',
    arrange: saying(([leaf, signer]) => [leaf!, signer!, 'nonsense']),
    code: 'CA_ANSWER_INVALID',
    says: /none of the roots can be read/,
  },
  {
    name: 'a certificate of someone else',
    async arrange(t, ca) {
      let issued: readonly string[] = [];
      ca.behave({
        kind: 'say',
        chain: (chain) => {
          issued = chain;
          return chain;
        },
      });
      const { client } = await clientOf(t, serverOf(ca));
      await client.sign(IDENTITY);
      return saying(() => issued)(t, ca);
    },
    code: 'CA_ANSWER_INVALID',
    says: /the certificate is for another key than the one in the request/,
  },
  {
    name: 'a certificate with another identity',
    arrange: saying(([, signer, root]) => [signer!, root!]),
    code: 'CA_ANSWER_INVALID',
    says: /did not find expected SAN: spiffe:\/\/cluster\.local\/ns\/default\/sa\/web, got \(\)/,
  },
  {
    name: 'a certificate that the roots sent with it did not sign',
    arrange(t, ca) {
      const other = scratchFolder(t);
      makeTestCa(other);
      const root = readFileSync(join(other, 'root.crt'), 'utf8');
      return saying(([leaf, signer]) => [leaf!, signer!, root])(t, ca);
    },
    code: 'CA_ANSWER_INVALID',
    says: /is not signed by any of the roots sent with it \(.*\), so no peer would accept it/,
  },
];

/** How long it waits elsewhere, in ms. */
const PATIENCE = 15_000;

/** One for the file: keys take their time. */
const folder = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
let ca: TestCa;
before(async () => {
  makeTestCa(folder);
  ca = await startTestCa({ folder });
});
after(() => {
  ca.stop();
  rmSync(folder, { recursive: true });
});
beforeEach(() => ca.behave({ kind: 'issue' }));

for (const { name, arrange, afterwards, patience = PATIENCE, code, says } of failures) {
  test(`${name} is explained`, async (t) => {
    const server = await arrange(t, ca);
    const { client } = await clientOf(t, server, { patience });
    if (afterwards !== undefined) {
      const isIssued = () =>
        client.sign(IDENTITY).then(
          () => true,
          () => false,
        );
      while (!(await isIssued()));
      ca.behave(afterwards);
    }
    const error = await client.sign(IDENTITY).then(
      () => assert.fail('a certificate was issued'),
      (error: unknown) => error as Error & { code: string },
    );
    assert.match(error.message, says);
    assert.equal(error.code, code, error.message);
    // One sentence, in which no secret is.
    assert.doesNotMatch(error.message, /\n|hid|PRIVATE/);
    if (server.token.kind === 'literal') assert.ok(!error.message.includes(server.token.token.reveal()));
    t.diagnostic(error.message);
  });
}

test('a server that repeats the token does not bring it into the log', async (t) => {
  ca.behave(({ headers }) => ({ kind: 'refuse', code: 7, details: `bad ${headers.authorization} here\u001b[31m` }));
  const { client } = await clientOf(t, serverOf(ca, { token: literal('s3cret') }));
  await assert.rejects(client.sign(IDENTITY), (error: Error) => {
    assert.match(error.message, /\(bad Bearer \*\*\* here/);
    assert.doesNotMatch(error.message, /s3cret/);
    assert.match(error.message, /^[\x20-\x7e]+$/);
    return true;
  });
});

for (const [name, headers, details, shown] of [
  ['whole', ['hidden-key'], 'key hidden-key is unknown', 'key *** is unknown'],
  ['without its scheme', ['Bearer hidden-key'], 'Bearer token hidden-key is unknown', 'Bearer token *** is unknown'],
  ['in another order', ['Basic hidden-a hidden-b'], 'no: hidden-b, hidden-a', 'no: ***, ***'],
  ['in part, as a cookie', ['hidden=1; hidden=2'], 'cookie hidden=1 is old', 'cookie *** is old'],
  ['beside a longer one that begins alike', ['hidden', 'hidden-hid'], 'no: hidden-hid, hidden', 'no: ***, ***'],
  ['that is the word for the case', ['impersonation'], 'no impersonation', 'no ***'],
] as const) {
  test(`a header's secret that the server repeats ${name} is not shown`, async (t) => {
    ca.behave({ kind: 'refuse', code: 7, details });
    const sent = headers.map((value, index) => ({ name: `x-key-${index}`, value: new Secret(value) }));
    const { client } = await clientOf(t, serverOf(ca, { headers: sent }));
    await assert.rejects(client.sign(IDENTITY), (error: Error & { code: string }) => {
      assert.ok(error.message.endsWith(`(${shown})`), error.message);
      assert.doesNotMatch(error.message, /hid/);
      assert.equal(error.code, headers[0] === 'impersonation' ? 'CA_IMPERSONATION_REFUSED' : 'CA_TOKEN_REFUSED');
      return true;
    });
  });
}

for (const [name, times, says] of [
  ['not valid yet', { notBefore: Date.now() + HOUR }, /certificate not valid before .*; this node's clock says .*Z/],
  [
    'expired',
    { notBefore: Date.now() - 2 * HOUR, ttlMs: -HOUR },
    /certificate expired at .*; this node's clock says .*Z/,
  ],
] as const) {
  test(`a new certificate that is ${name} names both clocks`, async (t) => {
    ca.behave({ kind: 'issue', ...times });
    const { client } = await clientOf(t, serverOf(ca));
    const manager = createCertificateManager({ authority: client, log: { error() {}, warn() {}, debug() {} } });
    t.after(() => manager.close());
    await assert.rejects(manager.get(IDENTITY), { code: 'CERTIFICATE_UNAVAILABLE', message: says });
  });
}

for (const [name, roots, says] of [
  [
    'a roots file that is not there',
    { kind: 'file', path: '/nowhere/root.pem' },
    /CA_ROOT_CA cannot be used: ENOENT.*nowhere/,
  ],
  [
    'text without a certificate',
    { kind: 'inline', pem: '-----BEGIN x' },
    /CA_ROOT_CA cannot be used: its text has no PEM/,
  ],
] as const) {
  test(`${name} is refused at the start`, async (t) => {
    const server = serverOf({ address: 'https://localhost:1', rootsFile: '' }, { roots });
    await assert.rejects(clientOf(t, server), { code: 'ROOTS_UNUSABLE', message: says });
  });
}

import assert from 'node:assert/strict';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { Server as GrpcServer, ServerCredentials, status } from '@grpc/grpc-js';
import { Secret } from '../../src/config/secret.ts';
import { createAuthority } from '../native/authority.ts';
import { freePort } from '../support/free-ports.ts';
import { folder, istiod, startClient, token } from './support/client-under-test.ts';

const HOUR = 3_600_000;
const authority = createAuthority();
const jwt = (exp: number) =>
  ['{"alg":"none"}', JSON.stringify({ exp }), 'signature']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');
const expired = jwt(1_700_000_000);

type Changes = Parameters<typeof startClient>[2];

interface Case {
  readonly name: string;
  readonly says: RegExp;
  /** Brings up what is wrong; returns where the client is to connect and what else it is given. */
  start(t: TestContext): Promise<{ address: string; rootPem?: string; changes?: Changes }>;
}

/** A control plane that ends every stream with a status. */
function refusing(code: number, details = ''): Case['start'] {
  return async (t) => {
    const server = await istiod(t);
    server.refuse({ code, details });
    return server;
  };
}

/** A server that is no control plane. */
async function listening(t: TestContext, server: Server): Promise<{ address: string; rootPem: string }> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket.on('error', () => {})));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { address: `https://localhost:${(server.address() as { port: number }).port}`, rootPem: authority.rootPem };
}

const SILENT: Case = {
  name: 'nobody answers',
  says: /does not answer: a NetworkPolicy, firewall or missing route .*\(no TLS handshake within 10 s\)/,
  start: (t) => listening(t, createServer()),
};
const cases: readonly Case[] = [
  {
    name: 'nothing listens',
    says: /^nothing listens at the control plane's address localhost:\d+: check XDS_ADDRESS, and that istiod is running/,
    start: async () => ({ address: `https://localhost:${await freePort()}` }),
  },
  {
    name: 'the name is not known',
    says: /^the name of the control plane, istiod\.invalid:15012, cannot be resolved: check XDS_ADDRESS/,
    start: async () => ({ address: 'https://istiod.invalid:15012' }),
  },
  {
    name: 'another root',
    says: /is not trusted: its certificate is not signed by a root of XDS_ROOT_CA, which may be of another mesh/,
    start: async (t) => ({ address: (await istiod(t)).address, rootPem: createAuthority('other').rootPem }),
  },
  {
    name: 'another name',
    says: /shows a certificate for other names: .*set ALT_XDS_HOSTNAME to a name in its certificate .*istiod\.elsewhere/,
    start: (t) => istiod(t, { dnsNames: ['istiod.elsewhere'] }),
  },
  {
    name: 'a certificate that has expired',
    says: /certificate of the control plane at .* has expired, and this node's clock says 20\d\d-.*needs a new one/,
    start: (t) => istiod(t, { notBefore: -2 * HOUR, notAfter: -HOUR }),
  },
  {
    name: 'a certificate that is not valid yet',
    says: /is not valid yet, and this node's clock says 20\d\d-.*: check the clocks of both/,
    start: (t) => istiod(t, { notBefore: HOUR / 2, notAfter: HOUR }),
  },
  {
    name: 'the plain port',
    says: /does not speak TLS: XDS_ADDRESS has to name the secure port \(15012 of istiod\), not the plain one/,
    start: (t) =>
      listening(
        t,
        createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
      ),
  },
  {
    name: 'TLS without HTTP/2',
    says: /does not speak HTTP\/2: check that XDS_ADDRESS names the control plane/,
    start(t) {
      const { chainPem, keyPem } = authority.material({ dnsNames: ['localhost'] });
      return listening(t, createTlsServer({ cert: chainPem, key: keyPem }));
    },
  },
  {
    name: 'TLS for HTTP/1.1 alone',
    says: /does not speak HTTP\/2: check that XDS_ADDRESS names the control plane/,
    start(t) {
      const { chainPem, keyPem } = authority.material({ dnsNames: ['localhost'] });
      return listening(t, createTlsServer({ cert: chainPem, key: keyPem, ALPNProtocols: ['http/1.1'] }));
    },
  },
  {
    name: 'a server without delta ADS',
    says: /has no delta ADS: check that XDS_ADDRESS names the control plane .* PILOT_ENABLE_AMBIENT=true/,
    async start(t) {
      const { chainPem, keyPem } = authority.material({ dnsNames: ['localhost'] });
      const server = new GrpcServer();
      t.after(() => server.forceShutdown());
      const port = await new Promise<number>((resolve, reject) =>
        server.bindAsync(
          '127.0.0.1:0',
          ServerCredentials.createSsl(null, [{ cert_chain: Buffer.from(chainPem), private_key: Buffer.from(keyPem) }]),
          (error, bound) => (error === null ? resolve(bound) : reject(error)),
        ),
      );
      return { address: `https://localhost:${port}`, rootPem: authority.rootPem };
    },
  },
  {
    name: 'no token',
    says: /does not know who asks, as no token was sent: set AUTH_TOKEN, or mount a token/,
    start: (t) => istiod(t, { token: 'wanted' }),
  },
  {
    name: 'an expired token',
    says: /refused the token in AUTH_TOKEN \(the token itself, as it names no file\), which expired at 2023-11-14T22:13:20\.000Z: it has to be a projected volume/,
    start: async (t) => ({ ...(await istiod(t, { token: 'wanted' })), changes: { token: token(expired) } }),
  },
  {
    name: 'a token for somebody else',
    says: /refused the token in AUTH_TOKEN \(the token itself, as it names no file\): its audience has to be .*istio-ca.*CLUSTER_ID \(Kubernetes\)/,
    start: async (t) => ({ ...(await istiod(t, { token: 'wanted' })), changes: { token: token(jwt(9_000_000_000)) } }),
  },
  {
    name: 'an empty token file',
    says: /token file exists, but was empty: .*\/token/,
    start: async (t) => ({
      ...(await istiod(t)),
      changes: { token: { kind: 'file', path: folder(t).write('token', '\n') } },
    }),
  },
  {
    name: 'a root file that is not there',
    says: /XDS_ROOT_CA cannot be used: ENOENT.*\/none.*istio-ca-root-cert/,
    start: async (t) => ({
      ...(await istiod(t)),
      changes: { roots: { kind: 'file', path: `${folder(t).path}/none` } },
    }),
  },
  {
    name: 'a header that cannot be sent',
    says: /^XDS_HEADER_X-TEAM has characters that a header cannot carry$/,
    start: async (t) => ({
      ...(await istiod(t)),
      changes: { headers: [{ name: 'x-team', value: new Secret('hea\nder') }] },
    }),
  },
  {
    name: 'a header that HTTP/2 forbids',
    says: /forbidden: "?connection/,
    start: async (t) => ({
      ...(await istiod(t)),
      changes: { headers: [{ name: 'connection', value: new Secret('close') }] },
    }),
  },
  {
    name: 'a gateway with an error page',
    says: /is not available: .*\(HTTP status 503\)/,
    start(t) {
      const { chainPem, keyPem } = authority.material({ dnsNames: ['localhost'] });
      const server = createSecureServer({ cert: chainPem, key: keyPem });
      server.on('stream', (stream: ServerHttp2Stream) => {
        stream.on('error', () => {});
        stream.respond({ ':status': 503, 'content-type': 'text/html' });
        stream.end('<html>no healthy upstream</html>');
      });
      return listening(t, server);
    },
  },
  {
    name: 'another namespace',
    says: /does not let this agent have mesh state: POD_NAMESPACE has to be .*\(no authorized identity\)/,
    start: refusing(status.PERMISSION_DENIED, 'no authorized identity'),
  },
  {
    name: 'a stream that ends before it brought anything',
    says: /^the control plane at localhost:\d+ ended the stream( \(OK\))?$/,
    start: refusing(status.OK),
  },
  {
    name: 'a control plane that starts',
    says: /is not available: it may be starting, restarting or overloaded \(not ready\)/,
    start: refusing(status.UNAVAILABLE, 'not ready'),
  },
  {
    name: 'a control plane at its limit',
    says: /is at its limit: it admits this agent later, or the request was longer than its ISTIO_GPRC_MAXRECVMSGSIZE/,
    start: refusing(status.RESOURCE_EXHAUSTED, 'too many'),
  },
  {
    name: 'a status of its own',
    says: /ended the stream with gRPC status 9; its own log says why \(see there\)/,
    start: refusing(status.FAILED_PRECONDITION, 'see\nthere'),
  },
];

test('what is wrong with the control plane is said once, with what to do', { concurrency: true }, async (t) => {
  const run = ({ name, says, start }: Case, attempts: number) =>
    t.test(name, async (t) => {
      const { address, rootPem = authority.rootPem, changes = {} } = await start(t);
      const { client, until, lines } = startClient(t, { address, rootPem }, changes);
      await until('tried', () => client.status().terminations >= attempts);
      const { lastError, connection, synced } = client.status();
      assert.match(lastError!, says);
      assert.notEqual(connection, 'connected');
      assert.equal(synced, false);
      const said = lines.filter((line) => line.includes('no mesh state from the control plane'));
      assert.equal(said.length, 1, lines.join('\n'));
      assert.ok(!lines.some((line) => /wanted|hea\sder|eyJ/.test(line)), 'a secret in the log');
    });
  // That takes ten seconds. All of the others at once would keep the thread from noticing for as long who does answer.
  const silent = run(SILENT, 1);
  for (const each of cases) await run(each, 4);
  await silent;
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { CLIENT_AUTH, createAuthority, type Leaf, SERVER_AUTH } from './authority.ts';
import { CLIENT_ID, SERVER_ID, startedTlsPair, startServer } from './secure-side.ts';
import { acceptSides, assertLog, LOCAL, nextTurns, type Side, testLoop } from './side.ts';

const authority = createAuthority();
const stranger = createAuthority('stranger');
const HOUR = 3_600_000;

interface Case {
  readonly client?: Leaf;
  readonly server?: Leaf;
  readonly identities?: readonly string[];
  readonly trustDomain?: string;
}

const accepted: Record<string, Case & { readonly clientSees?: string; readonly serverSees?: string }> = {
  'the expected ones': {},
  'RSA keys': { client: { uris: [CLIENT_ID], key: 'RSA' }, server: { uris: [SERVER_ID], key: 'RSA' } },
  'one of several expected': { identities: ['spiffe://cluster.local/ns/shop/sa/other', SERVER_ID] },
  'a second name that is expected': {
    server: { uris: ['spiffe://cluster.local/ns/shop/sa/other', SERVER_ID] },
    client: { uris: ['https://example.com/', 'spiffe://other.domain/ns/a/sa/b', CLIENT_ID] },
  },
  'names that are no URIs beside it': { server: { uris: [SERVER_ID], dnsNames: ['server.shop.svc'] } },
  'a trust domain of its own': {
    client: { uris: ['spiffe://td.example/ns/a/sa/b'] },
    trustDomain: 'td.example',
    serverSees: 'spiffe://td.example/ns/a/sa/b',
  },
};

for (const [name, { client, server, clientSees, serverSees, ...expected }] of Object.entries(accepted)) {
  test(`identities are accepted: ${name}`, async (t) => {
    const loop = testLoop(t);
    const sides = await startedTlsPair(
      loop,
      authority.material(client ?? { uris: [CLIENT_ID] }),
      authority.material(server ?? { uris: [SERVER_ID] }),
      expected,
    );
    await Promise.all([sides.client.told('secured'), sides.server.told('secured')]);
    assert.equal(loop.peer(sides.client.channel)?.identity, clientSees ?? SERVER_ID);
    assert.equal(loop.peer(sides.server.channel)?.identity, serverSees ?? CLIENT_ID);
  });
}

test('identities are accepted: through an intermediate authority', async (t) => {
  const loop = testLoop(t);
  const intermediate = authority.intermediate();
  const { client, server } = await startedTlsPair(
    loop,
    intermediate.material({ uris: [CLIENT_ID] }),
    intermediate.material({ uris: [SERVER_ID] }),
  );
  await Promise.all([client.told('secured'), server.told('secured')]);
});

const refusedByClient: Record<string, Case & { readonly error: string }> = {
  'another identity': {
    server: { uris: ['spiffe://cluster.local/ns/shop/sa/other'] },
    error: `identity verification error: peer did not present the expected SAN (${SERVER_ID}), got (spiffe://cluster.local/ns/shop/sa/other)`,
  },
  'an identity that begins like the expected one': {
    server: { uris: [`${SERVER_ID}2`] },
    error: `identity verification error: peer did not present the expected SAN (${SERVER_ID}), got (${SERVER_ID}2)`,
  },
  'an identity with a zero byte behind the expected one': {
    server: { uris: [`${SERVER_ID}\0`] },
    error: `identity verification error: peer did not present the expected SAN (${SERVER_ID}), got ()`,
  },
  'no URI at all': {
    server: { dnsNames: [SERVER_ID] },
    error: `identity verification error: peer did not present the expected SAN (${SERVER_ID}), got ()`,
  },
  'nobody is expected': {
    identities: [],
    error: `identity verification error: peer did not present the expected SAN (), got (${SERVER_ID})`,
  },
  'an expired certificate': { server: { uris: [SERVER_ID], notAfter: -HOUR / 60 }, error: 'certificate has expired' },
  'a certificate of the future': {
    server: { uris: [SERVER_ID], notBefore: HOUR / 60 },
    error: 'certificate is not yet valid',
  },
  'a certificate that is not for servers': {
    server: { uris: [SERVER_ID], usages: [CLIENT_AUTH] },
    error: 'unsuitable certificate purpose',
  },
};

/** Where a certificate is out of its time, both times are told: either may be the wrong one. */
function withoutTimes(event: string): string {
  if (!/certificate (has expired|is not yet valid)/.test(event)) return event;
  const times = / \(certificate not valid (before|after) [-\d]+T[\d:]+Z; this node's clock says [-\d]+T[\d:]+Z\)$/;
  assert.match(event, times);
  return event.replace(times, '');
}

for (const [name, { client, server, error, ...expected }] of Object.entries(refusedByClient)) {
  test(`a client refuses: ${name}`, async (t) => {
    const loop = testLoop(t);
    const sides = await startedTlsPair(
      loop,
      authority.material(client ?? { uris: [CLIENT_ID] }),
      authority.material(server ?? { uris: [SERVER_ID] }),
      expected,
    );
    await sides.client.told('failed');
    assert.deepEqual(sides.client.log.map(withoutTimes), [`failed TLS: tls handshake error: ${error}`]);
    assert.equal(loop.peer(sides.client.channel), null);
    // The server is told why.
    assert.match(await sides.server.told('failed'), /^failed TLS: tls handshake error: .*alert .*certificate/);
    assert.equal(loop.peer(sides.server.channel), null);
  });
}

const refusedByServer: Record<string, Case & { readonly error: string }> = {
  'another trust domain': {
    client: { uris: ['spiffe://evil.local/ns/shop/sa/client'] },
    error: 'identity verification error: expected trustdomain (cluster.local), got (evil.local)',
  },
  'a trust domain that begins like the own one': {
    client: { uris: ['spiffe://cluster.local.evil/ns/shop/sa/client'] },
    error: 'identity verification error: expected trustdomain (cluster.local), got (cluster.local.evil)',
  },
  'names that are no identities of workloads': {
    client: {
      uris: [
        'spiffe://cluster.local',
        'spiffe://cluster.local/ns/shop/sa/',
        'spiffe://cluster.local/ns/shop/sa/a/b',
        'spiffe://cluster.local/sa/shop/ns/client',
        'spiffe:///ns/shop/sa/client',
        'https://cluster.local/ns/shop/sa/client',
      ],
    },
    error: 'identity verification error: expected trustdomain (cluster.local), got ()',
  },
  'no URI at all': { client: {}, error: 'identity verification error: expected trustdomain (cluster.local), got ()' },
  'an expired certificate': { client: { uris: [CLIENT_ID], notAfter: -1000 }, error: 'certificate has expired' },
  'a certificate that is not for clients': {
    client: { uris: [CLIENT_ID], usages: [SERVER_AUTH] },
    error: 'unsuitable certificate purpose',
  },
};

for (const [name, { client, server, error, ...expected }] of Object.entries(refusedByServer)) {
  test(`a server refuses: ${name}`, async (t) => {
    const loop = testLoop(t);
    const sides = await startedTlsPair(
      loop,
      authority.material(client ?? { uris: [CLIENT_ID] }),
      authority.material(server ?? { uris: [SERVER_ID] }),
      expected,
    );
    await sides.server.told('failed');
    assert.deepEqual(sides.server.log.map(withoutTimes), [`failed TLS: tls handshake error: ${error}`]);
    assert.equal(loop.peer(sides.server.channel), null);
    // In TLS 1.3 a client is done before it is judged.
    await sides.client.told('secured');
    assert.match(await sides.client.told('failed'), /^failed TLS: tls error: the peer sent alert .*certificate/);
  });
}

test('either side refuses certificates of an authority that it does not trust', async (t) => {
  const loop = testLoop(t);
  const known = (uri: string) => authority.material({ uris: [uri] });
  const strange = (uri: string, rootsPem: string) => stranger.material({ uris: [uri] }, { rootsPem });
  {
    const { client, server } = await startedTlsPair(loop, known(CLIENT_ID), strange(SERVER_ID, authority.rootPem));
    const failure = await client.told('failed');
    assert.equal(failure, 'failed TLS: tls handshake error: unable to get local issuer certificate');
    await server.told('failed');
  }
  {
    const { client, server } = await startedTlsPair(loop, strange(CLIENT_ID, authority.rootPem), known(SERVER_ID));
    const failure = await server.told('failed');
    assert.equal(failure, 'failed TLS: tls handshake error: unable to get local issuer certificate');
    await client.told('failed');
  }
  {
    // An intermediate authority that is not sent.
    const material = authority.intermediate().material({ uris: [SERVER_ID] });
    const [leaf] = material.chainPem.split(/(?<=-----END CERTIFICATE-----\n)/);
    const { client } = await startedTlsPair(loop, known(CLIENT_ID), { ...material, chainPem: leaf! });
    const failure = await client.told('failed');
    assert.equal(failure, 'failed TLS: tls handshake error: unable to get local issuer certificate');
  }
});

test('a server refuses a client without a certificate', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  const { rootPem } = authority;
  const client = tlsConnect({
    host: LOCAL,
    port,
    ca: rootPem,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  const refused = new Promise<NodeJS.ErrnoException>((resolve) => client.once('error', resolve));
  const server = await accepted.promise;
  startServer(server, authority.material({ uris: [SERVER_ID] }));
  await server.told('failed');
  assertLog(server, ['failed TLS: tls handshake error: peer did not return a certificate']);
  assert.equal((await refused).code, 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED');
  loop.close(server.channel);
  await nextTurns();
  assert.equal(loop.size, 0);
});

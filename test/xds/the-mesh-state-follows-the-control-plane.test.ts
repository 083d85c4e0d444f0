import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../../src/config/secret.ts';
import { splitCertificates } from '../../src/identity/pem.ts';
import { createAuthority } from '../native/authority.ts';
import { freePort } from '../support/free-ports.ts';
import { ADDRESS, AUTHORIZATION, type TestIstiod, versionOf } from '../support/istiod.ts';
import { encode } from '../support/xds-schema.ts';
import {
  folder,
  holds,
  hostname,
  istiod,
  NODE,
  policy,
  service,
  startClient,
  token,
  uid,
  workload,
} from './support/client-under-test.ts';

test('both types are asked for at once, with the node, and what comes is acknowledged by its nonce', async (t) => {
  const server = await istiod(t);
  server.change({
    addresses: { [uid('a')]: workload('a'), [`demo/${hostname('s')}`]: service('s') },
    policies: { 'demo/p': policy('p') },
  });
  const { client, store } = startClient(t, server);
  await client.synced;
  assert.ok(holds(store, [uid('a'), `demo/${hostname('s')}`], ['demo/p']));
  const first = server.requests.filter(({ nonce }) => nonce === '');
  assert.deepEqual(
    first.map(({ typeUrl, node, subscribe, unsubscribe, initialVersions }) => ({
      typeUrl,
      node,
      subscribe,
      unsubscribe,
      initialVersions,
    })),
    [ADDRESS, AUTHORIZATION].map((typeUrl) => ({
      typeUrl,
      node: { id: NODE.id, metadata: NODE.metadata },
      subscribe: [],
      unsubscribe: [],
      initialVersions: {},
    })),
  );
  for (const typeUrl of [ADDRESS, AUTHORIZATION]) {
    const ack = await server.request('an ACK', (request) => request.typeUrl === typeUrl && request.nonce !== '');
    assert.equal(ack.error, null);
    assert.equal(ack.node, null);
  }
});

test('the request carries token, cluster and further headers', async (t) => {
  const server = await istiod(t, { token: 'first' });
  const { client } = startClient(t, server, {
    token: token('first'),
    clusterId: 'east',
    headers: [{ name: 'x-team', value: new Secret('mesh') }],
  });
  await client.synced;
  const { authorization, clusterid, 'x-team': team } = server.headers[0]!;
  assert.deepEqual(
    { authorization, clusterid, team },
    { authorization: 'Bearer first', clusterid: 'east', team: 'mesh' },
  );
});

test('changes and removals are followed', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a'), [uid('b')]: workload('b') } });
  const { client, store, until } = startClient(t, server);
  await client.synced;
  server.push({
    addresses: { [uid('a')]: workload('a', { canonicalName: 'new' }), [uid('b')]: null, [uid('c')]: workload('c') },
    policies: { 'demo/p': policy('p') },
  });
  await until('changed', () => holds(store, [uid('a'), uid('c')], ['demo/p']));
  assert.equal(store.workload(uid('a'))!.canonicalName, 'new');
  server.push({ policies: { 'demo/p': null } });
  await until('removed', () => holds(store, [uid('a'), uid('c')], []));
});

test('a bad resource is rejected by its name, the good ones count, and the older version stays', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a'), [uid('b')]: workload('b') } });
  const { client, store, until, lines } = startClient(t, server);
  await client.synced;
  const from = server.requests.length;
  server.push({
    addresses: {
      [uid('a')]: workload('a', { tunnelProtocol: 'LEGACY_ISTIO_MTLS', canonicalName: 'bad' }),
      [uid('b')]: workload('b', { canonicalName: 'good' }),
      [uid('c')]: workload('c', { addresses: [Buffer.of(1, 2, 3)] }),
    },
  });
  const nack = await server.request('a NACK', ({ error }) => error !== null, from);
  assert.equal(nack.error, `${uid('a')}: unknown tunnel protocol 2; ${uid('c')}: failed to parse address, had 3 bytes`);
  await until('applied', () => store.workload(uid('b'))?.canonicalName === 'good');
  assert.equal(store.workload(uid('a'))!.canonicalName, '');
  assert.equal(store.workload(uid('c')), null);
  assert.deepEqual(Object.keys(client.status().types.Address!.rejected), [uid('a'), uid('c')]);
  assert.ok(lines.some((line) => line.includes('rejected') && line.includes(uid('a'))));
  // Once they are good, nothing is left of it.
  server.push({ addresses: { [uid('a')]: workload('a', { canonicalName: 'better' }), [uid('c')]: null } });
  await until('accepted', () => store.workload(uid('a'))?.canonicalName === 'better');
  await until('forgotten', () => Object.keys(client.status().types.Address!.rejected).length === 0);
});

test('a policy that is not understood denies, unless an older version of it is there', async (t) => {
  const server = await istiod(t);
  // A condition of a later version of the control plane: field 20 of a match.
  const future = (name: string) => {
    const match = Buffer.concat([encode('Match', { destinationPorts: [80] }), Buffer.of((20 << 3) | 2, 1, 0x78)]);
    const nested = (field: number, bytes: Buffer) => Buffer.concat([Buffer.of((field << 3) | 2, bytes.length), bytes]);
    return Buffer.concat([encode('Authorization', policy(name)), nested(5, nested(1, nested(2, match)))]);
  };
  server.change({ policies: { 'demo/old': policy('old'), 'demo/new': future('new') } });
  const { client, store, until } = startClient(t, server);
  // It denies, so it may be served with.
  await client.synced;
  assert.equal(store.policy('demo/new')!.unintelligible, 'rule 1: unknown condition (field 20 of a match)');
  server.push({ policies: { 'demo/old': future('old') } });
  const told = (name: string) => `demo/${name}: rule 1: unknown condition (field 20 of a match)`;
  for (const name of ['new', 'old']) await server.request('a NACK', ({ error }) => error === told(name));
  assert.equal(store.policy('demo/old')!.unintelligible, null);
  server.push({ policies: { 'demo/new': null } });
  await until('removed', () => store.policy('demo/new') === null);
});

test('a reconnect reports versions: what is unchanged is not sent again, what went meanwhile is removed', async (t) => {
  const server = await istiod(t);
  const a = encode('Address', workload('a'));
  server.change({
    addresses: { [uid('a')]: a, [uid('b')]: workload('b'), [uid('c')]: workload('c', { addresses: [Buffer.of(1)] }) },
    policies: { 'demo/p': policy('p'), 'demo/q': policy('q') },
  });
  const { client, store, until, terminations, messages } = startClient(t, server);
  await client.synced;
  server.change({ addresses: { [uid('b')]: null, [uid('d')]: workload('d') }, policies: { 'demo/q': null } });
  const [from, before] = [server.requests.length, messages.length];
  server.endStreams();
  const request = await server.request('versions', ({ stream, typeUrl }) => stream === 1 && typeUrl === ADDRESS, from);
  // The rejected one is left out.
  assert.deepEqual(Object.keys(request.initialVersions).sort(), [uid('a'), uid('b')]);
  assert.equal(request.initialVersions[uid('a')], versionOf(a));
  assert.equal(request.node!.id, NODE.id);
  // A response takes effect before it counts.
  await until('in step', () => holds(store, [uid('a'), uid('d')], ['demo/p']) && messages.length >= before + 2);
  assert.equal(messages.length, before + 2);
  assert.deepEqual(terminations, ['Reconnect']);
});

for (const [how, end] of [
  ['a stream that ends in order', (server: TestIstiod) => server.endStreams({ code: 0 })],
  ['a connection that is told to go away', (server: TestIstiod) => server.goAway()],
  ['a stream whose transport closes', (server: TestIstiod) => server.endStreams()],
] as const) {
  test(`${how} is followed by another one, without a word`, async (t) => {
    const server = await istiod(t);
    server.change({ addresses: { [uid('a')]: workload('a') } });
    const { client, store, until, lines } = startClient(t, server);
    await client.synced;
    const said = lines.length;
    end(server);
    await until('connected again', () => server.headers.length === 2 && client.isConnected());
    server.push({ addresses: { [uid('b')]: workload('b') } });
    await until('in step', () => holds(store, [uid('a'), uid('b')], []));
    assert.deepEqual(lines.slice(said), []);
  });
}

test('the token is read anew for every stream', async (t) => {
  const server = await istiod(t, { token: 'one' });
  const file = folder(t);
  const path = file.write('token', 'one\n');
  const { client, until } = startClient(t, server, { token: { kind: 'file', path } });
  await client.synced;
  file.write('token', 'two\n');
  server.endStreams();
  await until('sent', () => server.headers.some(({ authorization }) => authorization === 'Bearer two'));
});

test('roots are read anew for every connection', async (t) => {
  const first = await istiod(t, { port: await freePort() });
  const file = folder(t);
  const path = file.write('root-cert.pem', first.rootPem);
  const { client, until, lines } = startClient(t, first, { roots: { kind: 'file', path } });
  await client.synced;
  await first.stop();
  // The same address with a certificate of another root.
  const second = await istiod(t, { port: first.port });
  second.change({ addresses: { [uid('new')]: workload('new') } });
  await until('distrusted', () => lines.some((line) => line.includes('is not trusted')));
  file.write('root-cert.pem', second.rootPem);
  await until('connected', () => second.openStreams() === 1);
});

test('a certificate with another name is accepted when that name is set', async (t) => {
  const server = await istiod(t, { dnsNames: ['istiod.istio-system.svc'] });
  const { client } = startClient(t, server, { altHostname: 'istiod.istio-system.svc' });
  await client.synced;
});

test('a response of a type that was not asked for is refused and harms nothing', async (t) => {
  const server = await istiod(t);
  const { client, until } = startClient(t, server);
  await client.synced;
  server.sendRaw({ typeUrl: 'type.googleapis.com/other', nonce: 'n', resources: [] });
  const nack = await server.request('a NACK', ({ nonce }) => nonce === 'n');
  assert.equal(nack.error, 'type.googleapis.com/other: this type was not asked for');
  server.push({ addresses: { [uid('a')]: workload('a') } });
  await until('served', () => client.status().types.Address!.resources === 1);
});

test('bytes that are no message end the stream, and the next one goes on', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a') } });
  const { client, store, until, lines } = startClient(t, server);
  await client.synced;
  server.sendRaw(Buffer.of(0x12, 0xff));
  await until('reconnected', () => server.headers.length === 2 && client.isConnected());
  assert.ok(lines.some((line) => line.includes('cannot be read')));
  server.push({ addresses: { [uid('b')]: workload('b') } });
  await until('in step', () => holds(store, [uid('a'), uid('b')], []));
});

test('what was read before bytes that are no message takes effect without another stream', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a') } });
  const { client, store, until, lines } = startClient(t, server);
  await client.synced;
  const value = encode('Address', workload('b'));
  const whole = encode('DeltaDiscoveryResponse', {
    resources: [{ name: uid('b'), version: '1', resource: { typeUrl: ADDRESS, value } }],
    typeUrl: ADDRESS,
    nonce: 'n',
  });
  server.sendRaw(Buffer.concat([whole, Buffer.of(0x17)]));
  await until('refused', () => lines.some((line) => line.includes('cannot be read')));
  assert.ok(holds(store, [uid('a'), uid('b')], []));
});

test('a trust anchor need not be self-signed', async (t) => {
  const authority = createAuthority();
  const material = authority.material({ dnsNames: ['localhost'] });
  const { address } = await istiod(t, { authority: { ...authority, material: () => material } });
  const [rootPem] = splitCertificates(material.chainPem);
  const { client, until } = startClient(t, { address, rootPem: rootPem! });
  await until('synced', () => client.status().synced);
});

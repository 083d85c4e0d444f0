import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createNetServer } from 'node:net';
import { test } from 'node:test';
import {
  type ConnectionOptions,
  createServer as createTlsServer,
  type TLSSocket,
  type TlsOptions,
  connect as tlsConnect,
} from 'node:tls';
import type { ChannelLoop } from '../../native/channel.ts';
import { closeFd } from '../../native/netns.ts';
import type { TestMaterial } from './authority.ts';
import { createAuthority } from './authority.ts';
import {
  CLIENT_ID,
  opensslIdentity,
  opensslPeer,
  SERVER_ID,
  startClient,
  startedTlsPair,
  startServer,
} from './secure-side.ts';
import { acceptSides, assertLog, connectSide, LOCAL, listenSomewhere, pattern, type Side, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });

/** A client of node:tls at a culvert server. */
async function nodeClient(
  loop: ChannelLoop,
  options: ConnectionOptions = {},
  material: TestMaterial = serverMaterial,
): Promise<{ client: TLSSocket; server: Side; error: Promise<NodeJS.ErrnoException> }> {
  const accepted = Promise.withResolvers<Side>();
  const { port, close } = acceptSides(loop, accepted.resolve);
  const client = tlsConnect({
    host: LOCAL,
    port,
    ca: authority.rootPem,
    cert: clientMaterial.chainPem,
    key: clientMaterial.keyPem,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
    ...options,
  });
  const error = new Promise<NodeJS.ErrnoException>((resolve) => client.once('error', resolve));
  const server = await accepted.promise;
  close();
  startServer(server, material);
  return { client, server, error };
}

/** A culvert client at a server of node:tls. */
async function nodeServer(
  loop: ChannelLoop,
  options: TlsOptions = {},
  material: TestMaterial = clientMaterial,
): Promise<{ client: Side; secured: Promise<TLSSocket>; close(): void }> {
  const secured = Promise.withResolvers<TLSSocket>();
  const server = createTlsServer(
    {
      cert: serverMaterial.chainPem,
      key: serverMaterial.keyPem,
      ca: authority.rootPem,
      requestCert: true,
      ALPNProtocols: ['h2'],
      ...options,
    },
    secured.resolve,
  );
  server.on('tlsClientError', () => {});
  server.listen(0, LOCAL);
  await once(server, 'listening');
  const client = connectSide(loop, (server.address() as { port: number }).port);
  await client.told('connected');
  startClient(client, material);
  return { client, secured: secured.promise, close: () => server.close() };
}

test('two channels agree on the post-quantum group and AES-256', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await startedTlsPair(loop, clientMaterial, serverMaterial);
  await Promise.all([client.told('secured'), server.told('secured')]);
  for (const side of [client, server]) {
    const { group, suite } = loop.peer(side.channel)!;
    assert.deepEqual([group, suite], ['X25519MLKEM768', 'TLS_AES_256_GCM_SHA384']);
  }
});

for (const [groups, group] of [
  ['X25519', 'x25519'],
  ['P-256', 'secp256r1'],
  ['P-384', 'secp384r1'],
  ['X25519MLKEM768', 'X25519MLKEM768'],
] as const) {
  test(`a peer that knows only ${groups} gets it, in either role`, async (t) => {
    const loop = testLoop(t);
    const { server, client } = await nodeClient(loop, { ecdhCurve: groups });
    await server.told('secured');
    assert.equal(loop.peer(server.channel)?.group, group);
    client.destroy();
    const other = await nodeServer(loop, { ecdhCurve: groups });
    await other.client.told('secured');
    assert.equal(loop.peer(other.client.channel)?.group, group);
    (await other.secured).destroy();
    other.close();
  });
}

test('peers without a common group get no connection', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await startedTlsPair(
    loop,
    { ...clientMaterial, groups: 'X25519MLKEM768' },
    { ...serverMaterial, groups: 'P-256' },
  );
  await Promise.all([client.told('failed'), server.told('failed')]);
  assertLog(server, ['failed TLS: tls handshake error: no suitable key share']);
  assertLog(client, ['failed TLS: tls handshake error: ssl/tls alert handshake failure']);
});

for (const [suites, suite] of [
  ['TLS_AES_256_GCM_SHA384', 'TLS_AES_256_GCM_SHA384'],
  ['TLS_AES_128_GCM_SHA256', 'TLS_AES_128_GCM_SHA256'],
  ['TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384', 'TLS_AES_256_GCM_SHA384'],
] as const) {
  test(`suites ${suites}: bytes cross both ways under ${suite}`, async (t) => {
    const loop = testLoop(t);
    const { server, client } = await nodeClient(loop, { ciphers: suites });
    await server.told('secured');
    assert.equal(loop.peer(server.channel)?.suite, suite);
    server.send(pattern(100_000));
    client.write(pattern(100_000));
    const received: Buffer[] = [];
    for await (const chunk of client) {
      received.push(chunk);
      if (Buffer.concat(received).length === 100_000) break;
    }
    assert.deepEqual(Buffer.concat(received), pattern(100_000));
    await server.until(() => server.receivedLength === 100_000);
    assert.deepEqual(server.received, pattern(100_000));
  });
}

const refused: Record<string, { options: ConnectionOptions; error: string; alert: string }> = {
  'another application protocol': {
    options: { ALPNProtocols: ['http/1.1'] },
    error: 'no application protocol',
    alert: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL',
  },
  'TLS 1.2': {
    options: { maxVersion: 'TLSv1.2' },
    error: 'unsupported protocol',
    alert: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
  },
  'ChaCha20 only': {
    options: { ciphers: 'TLS_CHACHA20_POLY1305_SHA256', minVersion: 'TLSv1.3' },
    error: 'no shared cipher',
    alert: 'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE',
  },
};

for (const [name, { options, error, alert }] of Object.entries(refused)) {
  test(`a client that speaks ${name} is refused, and told why`, async (t) => {
    const loop = testLoop(t);
    const { server, error: clientError } = await nodeClient(loop, options);
    await server.told('failed');
    assertLog(server, [`failed TLS: tls handshake error: ${error}`]);
    assert.equal((await clientError).code, alert);
  });
}

test('a server that speaks another application protocol, or TLS 1.2, is refused', async (t) => {
  const loop = testLoop(t);
  for (const [options, error] of [
    [{ ALPNProtocols: ['http/1.1'] }, 'tlsv1 alert no application protocol'],
    [{ maxVersion: 'TLSv1.2' }, 'tlsv1 alert protocol version'],
  ] as const) {
    const { client, close } = await nodeServer(loop, options);
    assert.equal(await client.told('failed'), `failed TLS: tls handshake error: ${error}`);
    close();
  }
});

test('no server name is sent, and h2 is chosen', async (t) => {
  const loop = testLoop(t);
  const { client, secured, close } = await nodeServer(loop);
  const socket = await secured;
  assert.equal(socket.servername, false);
  assert.equal(socket.alpnProtocol, 'h2');
  assert.equal(socket.getPeerCertificate().subjectaltname, `URI:${CLIENT_ID}`);
  await client.told('secured');
  socket.destroy();
  close();
});

test('RFC 8879: compressed certificates are not asked for', async (t) => {
  const loop = testLoop(t);
  const hello = Promise.withResolvers<Buffer>();
  const server = createNetServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', hello.resolve);
    t.after(() => socket.destroy());
  });
  server.listen(0, LOCAL);
  await once(server, 'listening');
  t.after(() => server.close());
  const client = connectSide(loop, (server.address() as { port: number }).port);
  await client.told('connected');
  startClient(client, clientMaterial);
  const offered = extensionsOf(await hello.promise);
  const SUPPORTED_GROUPS = 10;
  const COMPRESS_CERTIFICATE = 27;
  assert.ok(offered.includes(SUPPORTED_GROUPS));
  assert.ok(!offered.includes(COMPRESS_CERTIFICATE), `offered: ${offered.join(', ')}`);
});

/** The types of a ClientHello's extensions (RFC 8446 §4.1.2, §4.2). */
function extensionsOf(record: Buffer): number[] {
  // Record header, handshake header, version and random.
  let at = 5 + 4 + 2 + 32;
  at += 1 + record[at]!; // session id
  at += 2 + record.readUInt16BE(at); // cipher suites
  at += 1 + record[at]!; // compression methods
  const end = at + 2 + record.readUInt16BE(at);
  const types: number[] = [];
  for (at += 2; at < end; at += 4 + record.readUInt16BE(at + 2)) types.push(record.readUInt16BE(at));
  return types;
}

test('what peers send by mistake is named', async (t) => {
  const loop = testLoop(t);
  for (const [bytes, error] of [
    ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'the peer does not speak TLS (http request)'],
    ['CONNECT a:80 HTTP/1.1\r\n\r\n', 'the peer does not speak TLS (https proxy request)'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'the peer does not speak TLS (wrong version number)'],
    ['SSH-2.0-OpenSSH_9.2\r\n', 'the peer does not speak TLS (wrong version number)'],
    ['\0'.repeat(100), 'the peer does not speak TLS (wrong version number)'],
    ['\x80\x2e\x01\x03\x01', 'the peer does not speak TLS'],
    ['\x16\x03\x01\xff\xff', 'the peer does not speak TLS (data length too long)'],
    ['\x17\x03\x03\x00\x01\x00', 'unexpected message'],
    ['\x16\x03\x01\x00\x04\x01\xff\xff\xff', 'excessive message size'],
  ] as const) {
    const accepted = Promise.withResolvers<Side>();
    const { port, close } = acceptSides(loop, accepted.resolve);
    const client = connectSide(loop, port);
    const server = await accepted.promise;
    startServer(server, serverMaterial);
    client.send(bytes);
    assert.equal(await server.told('failed'), `failed TLS: tls handshake error: ${error}`, JSON.stringify(bytes));
    loop.close(server.channel);
    loop.close(client.channel);
    close();
  }
});

test('a peer that goes away during the handshake is an error, whatever it has sent', async (t) => {
  const loop = testLoop(t);
  const closed = 'tls handshake error: the peer closed the connection during the handshake';
  for (const bytes of ['', '\x16', '\x16\x03\x01\x00\x10half a record']) {
    const accepted = Promise.withResolvers<Side>();
    const { port, close } = acceptSides(loop, accepted.resolve);
    const client = connectSide(loop, port);
    const server = await accepted.promise;
    startServer(server, serverMaterial);
    client.send(bytes);
    loop.shutdown(client.channel);
    assert.equal(await server.told('failed'), `failed TLS: ${closed}`);
    assert.equal(loop.close(server.channel), true);
    close();
  }
  // And a server that accepts and closes.
  const server = createNetServer((socket) => socket.end()).listen(0, LOCAL);
  await once(server, 'listening');
  const client = connectSide(loop, (server.address() as { port: number }).port);
  await client.told('connected');
  startClient(client, clientMaterial);
  assert.equal(await client.told('failed'), `failed TLS: ${closed}`);
  server.close();
});

test('openssl as a client without the post-quantum group, and as a server', async (t) => {
  const loop = testLoop(t);
  {
    const accepted = Promise.withResolvers<Side>();
    const { port } = acceptSides(loop, accepted.resolve);
    const peer = opensslPeer(t, [
      ...['s_client', '-connect', `${LOCAL}:${port}`, '-alpn', 'h2', '-groups', 'X25519', '-noservername'],
      ...['-verify_return_error', '-quiet', '-no_ign_eof'],
      ...opensslIdentity(t, clientMaterial),
    ]);
    const server = await accepted.promise;
    startServer(server, serverMaterial);
    await server.told('secured');
    assert.equal(loop.peer(server.channel)?.group, 'x25519');
    peer.write('from openssl\n');
    await server.until(() => server.text === 'from openssl\n');
    server.send('from culvert\n');
    await peer.printed('from culvert');
    loop.shutdown(server.channel);
    await server.told('ended');
  }
  {
    const { fd, port } = listenSomewhere();
    closeFd(fd);
    const peer = opensslPeer(t, [
      ...['s_server', '-accept', `${LOCAL}:${port}`, '-alpn', 'h2', '-groups', 'X25519:P-256', '-Verify', '3'],
      ...['-verify_return_error', '-quiet'],
      ...opensslIdentity(t, serverMaterial),
    ]);
    let client: Side;
    // The program says nothing when it is ready.
    do {
      client = connectSide(loop, port);
      await client.until(() => client.log.length > 0);
    } while (client.log[0] !== 'connected');
    // Its tickets come after the handshake and are of no use.
    startClient(client, clientMaterial);
    await client.told('secured');
    assert.equal(loop.peer(client.channel)?.group, 'x25519');
    client.send('to openssl\n');
    await peer.printed('to openssl');
    peer.write('back again\n');
    await client.until(() => client.text === 'back again\n');
    assertLog(client, ['connected', 'secured']);
  }
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createServer, type TLSSocket, connect as tlsConnect } from 'node:tls';
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
  temporaryFolder,
} from './secure-side.ts';
import { acceptSides, assertLog, connectSide, LOCAL, pattern, type Side, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });
const permitting = (material: TestMaterial): TestMaterial => ({ ...material, tls12: true });

/** A client of node:tls that speaks TLS 1.2 at a culvert server. */
async function oldClient(t: TestContext, material: TestMaterial, ciphers?: string, loop = testLoop(t)) {
  const accepted = Promise.withResolvers<Side>();
  const { port, close } = acceptSides(loop, accepted.resolve);
  const client = tlsConnect({
    ...{ host: LOCAL, port, ca: authority.rootPem, maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] },
    ...{ cert: clientMaterial.chainPem, key: clientMaterial.keyPem, checkServerIdentity: () => undefined },
    ...(ciphers === undefined ? {} : { ciphers }),
  });
  t.after(() => client.destroy());
  client.on('error', () => {});
  const server = await accepted.promise;
  close();
  startServer(server, material);
  return { loop, client, server };
}

/** A culvert client at a server of node:tls that speaks TLS 1.2. */
async function oldServer(t: TestContext, material: TestMaterial) {
  const loop = testLoop(t);
  const secured = Promise.withResolvers<TLSSocket>();
  const server = createServer(
    {
      ...{ cert: serverMaterial.chainPem, key: serverMaterial.keyPem, ca: authority.rootPem },
      ...{ requestCert: true, maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] },
    },
    secured.resolve,
  );
  server.on('tlsClientError', () => {});
  server.listen(0, LOCAL);
  await once(server, 'listening');
  t.after(() => server.close());
  const client = connectSide(loop, (server.address() as { port: number }).port);
  await client.told('connected');
  startClient(client, material);
  return { loop, client, secured: secured.promise };
}

async function readAll(socket: TLSSocket, length: number): Promise<Buffer> {
  const received: Buffer[] = [];
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    received.push(chunk);
    if (Buffer.concat(received).length >= length) break;
  }
  return Buffer.concat(received);
}

for (const cipher of ['AES256-GCM-SHA384', 'AES128-GCM-SHA256']) {
  test(`bytes of all lengths cross both ways under ECDHE-ECDSA-${cipher}, with a client of before`, async (t) => {
    const { loop, client, server } = await oldClient(t, permitting(serverMaterial), `ECDHE-ECDSA-${cipher}`);
    await server.told('secured');
    assert.equal(client.getProtocol(), 'TLSv1.2');
    const { identity, suite } = loop.peer(server.channel)!;
    assert.equal(identity, CLIENT_ID);
    assert.match(suite, /^TLS_ECDHE_ECDSA_WITH_AES_(256|128)_GCM_SHA/);
    for (const length of [1, 2, 1000, 16_383, 16_384, 16_385, 300_000]) {
      const before = server.receivedLength;
      client.write(pattern(length));
      await server.until(() => server.receivedLength === before + length);
      assert.deepEqual(server.received.subarray(before), pattern(length));
      server.send(pattern(length));
      assert.deepEqual(await readAll(client, length), pattern(length));
    }
    // An end in order, both ways.
    client.end();
    await server.told('ended');
    loop.close(server.channel);
    await once(client, 'close');
    assertLog(server, ['secured', 'ended']);
  });
}

test('bytes cross both ways with a server of before, whose identity is verified', async (t) => {
  const { loop, client, secured } = await oldServer(t, permitting(clientMaterial));
  await client.told('secured');
  const server = await secured;
  t.after(() => server.destroy());
  assert.equal(loop.peer(client.channel)?.identity, SERVER_ID);
  client.send(pattern(200_000));
  assert.deepEqual(await readAll(server, 200_000), pattern(200_000));
  server.write(pattern(200_000));
  await client.until(() => client.receivedLength === 200_000);
  assert.deepEqual(client.received, pattern(200_000));
  loop.shutdown(client.channel);
  server.resume();
  await once(server, 'end');
});

test('two of culvert prefer TLS 1.3 all the same', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await startedTlsPair(loop, permitting(clientMaterial), permitting(serverMaterial));
  await Promise.all([client.told('secured'), server.told('secured')]);
  assert.equal(loop.peer(server.channel)?.suite, 'TLS_AES_256_GCM_SHA384');
});

test('nothing weaker than ECDHE with AES-GCM is agreed on', async (t) => {
  const loop = testLoop(t);
  for (const cipher of ['AES128-GCM-SHA256', 'ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305']) {
    const { server } = await oldClient(t, permitting(serverMaterial), cipher, loop);
    assert.match(await server.told('failed'), /no shared cipher/);
  }
});

test('a forged record is an error', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port, close } = acceptSides(loop, accepted.resolve);
  const raw = connect(port, LOCAL);
  const client = tlsConnect({
    ...{ socket: raw, ca: authority.rootPem, maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] },
    ...{ cert: clientMaterial.chainPem, key: clientMaterial.keyPem, checkServerIdentity: () => undefined },
  });
  client.on('error', () => {});
  const server = await accepted.promise;
  close();
  startServer(server, permitting(serverMaterial));
  await Promise.all([server.told('secured'), once(client, 'secureConnect')]);
  raw.write(Buffer.from([23, 3, 3, 0, 40, ...pattern(40)]));
  assert.match(
    await server.told('failed'),
    /^failed TLS: tls error: (record layer failure|decryption failed or bad record mac)$/,
  );
  client.destroy();
});

test('a renegotiation is refused', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  const peer = opensslPeer(t, [
    ...['s_client', '-connect', `${LOCAL}:${port}`, '-alpn', 'h2', '-tls1_2', '-noservername'],
    ...opensslIdentity(t, clientMaterial),
  ]);
  const server = await accepted.promise;
  startServer(server, permitting(serverMaterial));
  await server.told('secured');
  await peer.printed('Verify return code: 0');
  peer.write('R\n');
  assert.equal(await server.told('failed'), 'failed TLS: tls error: the peer asks for a renegotiation');
});

test('its secrets go to the key log in the form for TLS 1.2', async (t) => {
  const keyLogPath = join(temporaryFolder(t), 'keys.log');
  const { server } = await oldClient(t, { ...permitting(serverMaterial), keyLogPath });
  await server.told('secured');
  assert.match(readFileSync(keyLogPath, 'latin1'), /^CLIENT_RANDOM [0-9a-f]{64} [0-9a-f]{96}\n$/);
});

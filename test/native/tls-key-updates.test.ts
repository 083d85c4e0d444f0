import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closeFd } from '../../native/netns.ts';
import { createAuthority } from './authority.ts';
import { APPLICATION, forge, HANDSHAKE, KEY_UPDATE, message } from './record-forger.ts';
import {
  CLIENT_ID,
  type OpensslPeer,
  opensslIdentity,
  opensslPeer,
  SERVER_ID,
  startClient,
  startServer,
} from './secure-side.ts';
import { acceptSides, connectSide, LOCAL, listenSomewhere, type Side, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });

/** Lets the peer update keys, with (K) and without (k) asking for the other side's, between lines in both directions. */
async function updateKeys(side: Side, peer: OpensslPeer): Promise<void> {
  let received = '';
  for (const [at, command] of ['', 'k', 'K', 'k', 'K', 'K'].entries()) {
    if (command !== '') {
      // Only a command that comes alone is one.
      peer.write(`${command}\n`);
      await peer.printed('>>> TLS 1.3, Handshake [length 0005], KeyUpdate', at);
    }
    peer.write(`line ${at} of openssl\n`);
    received += `line ${at} of openssl\n`;
    await side.until(() => side.text === received);
    side.send(`line ${at} of culvert\n`);
    await peer.printed(`line ${at} of culvert\n`);
  }
}

test('a server follows the key updates of openssl s_client', async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  const peer = opensslPeer(t, [
    ...['s_client', '-connect', `${LOCAL}:${port}`, '-alpn', 'h2', '-noservername', '-msg'],
    ...opensslIdentity(t, clientMaterial),
  ]);
  const server = await accepted.promise;
  startServer(server, serverMaterial);
  await server.told('secured');
  await updateKeys(server, peer);
  assert.equal(peer.output().match(/<<< TLS 1\.3, Handshake \[length 0005\], KeyUpdate/g)?.length, 3);
});

test('a client follows the key updates of openssl s_server', async (t) => {
  const loop = testLoop(t);
  const { fd, port } = listenSomewhere();
  closeFd(fd);
  const peer = opensslPeer(t, [
    ...['s_server', '-accept', `${LOCAL}:${port}`, '-alpn', 'h2', '-Verify', '3', '-msg'],
    ...opensslIdentity(t, serverMaterial),
  ]);
  await peer.printed('ACCEPT');
  const client = connectSide(loop, port);
  await client.told('connected');
  startClient(client, clientMaterial);
  await client.told('secured');
  await peer.printed('CIPHER is');
  await updateKeys(client, peer);
  assert.equal(peer.output().match(/<<< TLS 1\.3, Handshake \[length 0005\], KeyUpdate/g)?.length, 3);
});

// RFC 8446 §5.5 allows 2^24.5 full records under one AES-GCM key.
const RECORDS_PER_KEY = 1 << 23;

test('the own keys are replaced long before their limit', {
  skip: process.env.CULVERT_STRESS !== 'long' && 'only with CULVERT_STRESS=long',
}, async (t) => {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, (side) => {
    startServer(side, serverMaterial);
    accepted.resolve(side);
  });
  const peer = await forge(port, clientMaterial);
  const server = await accepted.promise;
  await server.told('secured');
  const read = peer.countEqualRecords(100);
  loop.memory[0] = 42;
  for (let sent = 0; sent < RECORDS_PER_KEY + 10; ) {
    for (const end = Math.min(sent + 100_000, RECORDS_PER_KEY + 10); sent < end; sent++) {
      loop.write(server.channel, 0, 1);
      // A record of its own.
      loop.flush(server.channel);
    }
    server.log.length = 0;
    if (loop.flush(server.channel) > 0) await server.told('drained 0');
  }
  const { count, rest } = await read;
  assert.equal(count, RECORDS_PER_KEY);
  peer.receiving.skip(count);
  const sizeOf = (record: Buffer) => 5 + record.readUInt16BE(3);
  const update = rest.subarray(0, sizeOf(rest));
  assert.deepEqual(
    peer.receiving.open(update),
    Buffer.concat([message(KEY_UPDATE, Buffer.of(0)), Buffer.of(HANDSHAKE)]),
  );
  peer.receiving.update();
  const data = rest.subarray(update.length);
  assert.deepEqual(peer.receiving.open(data.subarray(0, sizeOf(data))), Buffer.of(42, APPLICATION));
});

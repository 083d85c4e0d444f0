import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closeFd } from '../../native/netns.ts';
import { createAuthority } from './authority.ts';
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

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { type EventEmitter, once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import type { ClientHttp2Stream } from 'node:http2';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeRevocationList } from '../identity/openssl.ts';
import { type Credentials, credentials, openTunnel, request } from '../support/hbone-client.ts';
import { listenHbone } from '../support/hbone-server.ts';
import { identityOf, meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho, patiently } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

test('a certificate that is revoked loses its tunnels at once, in both directions, and no other does', async (t) => {
  const network = await meshNetwork(t);
  const { folder } = network;
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const peer = await network.addPod('peer');
  const outside = await network.addPod('outside');
  const lists = join(folder, 'crl.pem');
  const agent = await startAgent({
    network,
    mesh: { workloads: [client, server, peer].map((pod) => workload(pod)) },
    // Not there yet: the agent starts, says so, and waits for it.
    env: { CRL_PATH: lists },
  });
  await agent.line('the file of revocation lists cannot be read; no certificate is revoked until it is');
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);

  const ofPeer = await credentials(agent.caDir, identityOf(peer));
  const ofSibling = await credentials(agent.caDir, identityOf(client));
  const shown = { credentials: ofPeer };
  await listenHbone(peer, () => ({
    ...shown,
    request(stream) {
      stream.respond({ ':status': 200 });
      stream.pipe(stream);
    },
  }));

  const open = async (presented: Credentials) => {
    const tunnel = await openTunnel(outside, server.ipv4, presented);
    const { status, stream } = await request(tunnel, `${server.ipv4}:8080`);
    assert.equal(status, 200);
    await echoed(stream);
    return stream;
  };
  const inbound = await open(ofPeer);
  const sibling = await open(ofSibling);
  const outbound = dial(client, peer.ipv4, 8080);
  outbound.send('hello');
  assert.equal(await outbound.text(5), 'hello');
  const neighbour = dial(client, server.ipv4, 8080);
  neighbour.send('hello');
  assert.equal(await neighbour.text(5), 'hello');

  const here = agent.here();
  const ended = closed(inbound);
  revoke(folder, agent.caDir, lists, [ofPeer]);
  await patiently('the tunnel from the revoked peer lives', ended);
  assert.match(await fate(outbound), /^(fin|ECONNRESET)$/);
  for (const direction of ['inbound', 'outbound']) {
    const line = await agent.access(
      ({ field }) => field('direction') === direction && field('error').includes('revoked'),
      here,
    );
    assert.equal(line.field('error'), 'connection closed: peer certificate revoked by CRL');
  }
  // Those that are not revoked go on as if nothing had been.
  await echoed(sibling);
  neighbour.send('still');
  assert.equal(await neighbour.text(5), 'still');

  // New ones are refused by every thread, once it has the list, and counted.
  await agent.dump();
  await assert.rejects(exchange(dial(client, peer.ipv4, 8080), 'again'));
  const again = await openTunnel(outside, server.ipv4, ofPeer);
  await assert.rejects(request(again, `${server.ipv4}:8080`));
  const samples = await agent.until(
    'counted',
    () => agent.metrics(),
    (samples) =>
      total(samples, 'istio_crl_policy_rejections_total', { reporter: 'destination' }) > 0 &&
      total(samples, 'istio_crl_policy_rejections_total', { reporter: 'source' }) > 0,
  );
  assert.ok(total(samples, 'istio_tcp_connections_failed_total', { response_flags: 'CERT_REVOKED' }) >= 2);

  // A file that cannot be used changes nothing.
  writeFileSync(`${lists}.new`, 'nonsense');
  renameSync(`${lists}.new`, lists);
  await agent.line('the file of revocation lists cannot be used; the 1 lists of before stay in force');
  await assert.rejects(exchange(dial(client, peer.ipv4, 8080), 'again'));

  // The peer gets another certificate.
  shown.credentials = await credentials(agent.caDir, identityOf(peer));
  assert.equal(await exchange(dial(client, peer.ipv4, 8080), 'hello'), 'hello');
  await echoed(sibling);

  // One of the agent's own is replaced by another, and pods talk on.
  const { certificates } = await agent.dump();
  const own = certificates.find(({ identity }) => identity === identityOf(server))!.certChain[0]!;
  const before = agent.here();
  revoke(folder, agent.caDir, lists, [{ cert: Buffer.from(own.pem, 'base64') }]);
  await agent.line('is no longer used, and another one is asked for', before);
  await agent.dump();
  assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');
});

/** An error comes before it: the peer is told why. */
function closed(end: EventEmitter): Promise<void> {
  end.on('error', () => {});
  return new Promise((resolve) => end.once('close', () => resolve()));
}

async function echoed(stream: ClientHttp2Stream): Promise<void> {
  stream.write('ping');
  const [answer] = (await patiently('no echo', once(stream, 'data'))) as [Buffer];
  assert.equal(answer.toString(), 'ping');
}

/** A list of the embedded CA, made by the stock openssl and put into place as an operator would. */
function revoke(
  folder: string,
  caDir: string,
  to: string,
  revoked: readonly { readonly cert: string | Buffer }[],
): void {
  const issuer = { cert: `${caDir}/ca-cert.pem`, key: `${caDir}/ca-key.pem` };
  const list = makeRevocationList(
    folder,
    issuer,
    revoked.map(({ cert }) => new X509Certificate(cert)),
  );
  writeFileSync(`${to}.made`, list);
  renameSync(`${to}.made`, to);
}

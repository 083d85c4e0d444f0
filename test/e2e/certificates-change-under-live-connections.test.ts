import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { credentials, secure } from '../support/hbone-client.ts';
import { listenHbone } from '../support/hbone-server.ts';
import { identityOf, meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';

test('certificates are renewed at half their life, and nobody notices', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const peer = await network.addPod('peer');
  const outside = await network.addPod('outside');
  const agent = await startAgent({
    network,
    mesh: { workloads: [client, server, peer].map((pod) => workload(pod)) },
    // Each is renewed when half of it is left, which is to be enough on a machine that is busy with other things.
    env: { SECRET_TTL: '20s' },
  });
  // Without root of the machine its start has a warning.
  const started = agent.here();
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  const shown: string[] = [];
  const own = await credentials(agent.caDir, identityOf(peer));
  await listenHbone(peer, () => ({
    credentials: own,
    session: ({ socket }) =>
      shown.push(new X509Certificate((socket as TLSSocket).getPeerCertificate().raw).serialNumber),
    request(stream) {
      stream.respond({ ':status': 200 });
      stream.pipe(stream);
    },
  }));
  const stranger = await credentials(agent.caDir, identityOf(client));
  const serial = async () => {
    const tls = await secure(outside, server.ipv4, 15008, stranger);
    const { serialNumber } = new X509Certificate(tls.getPeerCertificate().raw);
    tls.destroy();
    return serialNumber;
  };

  const long = dial(client, server.ipv4, 8080);
  long.send('first');
  assert.equal(await long.text(5), 'first');
  assert.equal(await exchange(dial(client, peer.ipv4, 8080), 'hello'), 'hello');
  const before = await serial();
  await agent.until('renewed at the server', serial, (now) => now !== before);
  // Tunnels of before take no new streams: sooner or later every thread opens a new one.
  await agent.until(
    'renewed at the client',
    async () => {
      assert.equal(await exchange(dial(client, peer.ipv4, 8080), 'hello'), 'hello');
      assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');
      return new Set(shown).size;
    },
    (serials) => serials > 1,
  );
  long.send('still');
  assert.equal(await long.text(5), 'still');
  assert.equal(await exchange(long, 'here'), 'here');
  // The only lines of that kind are about the connections that look at the certificate.
  const complaints = agent
    .output()
    .slice(started)
    .split('\n')
    .filter((line) => /\t(error|warn)\t/.test(line) && !line.includes(`src.addr=${outside.ipv4}:`));
  assert.deepEqual(complaints, []);
});

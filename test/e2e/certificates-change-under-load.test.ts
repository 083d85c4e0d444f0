import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { makeTestCa, startTestCa } from '../support/istio-ca-server.ts';
import { identityOf, meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';

/** What is left of a certificate when it is renewed is half of this: enough on a machine that is busy with other things. */
const TTL_MS = 20_000;
/** At least so many requests follow when a renewal of every certificate has been asked for. */
const MORE = 60;

test('certificates of a control plane are renewed under load without a failed request', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const folder = join(network.folder, 'control-plane');
  mkdirSync(folder);
  makeTestCa(folder);
  const ca = await startTestCa({ folder });
  network.defer(() => ca.stop());
  // Not dated back: half the life of a certificate is then half of this.
  ca.behave(() => ({ kind: 'issue', ttlMs: TTL_MS, notBefore: Date.now() - 1000 }));
  const agent = await startAgent({
    network,
    caDir: '',
    mesh: { workloads: [client, server].map((pod) => workload(pod)) },
    env: { CA_ADDRESS: ca.address, CA_ROOT_CA: ca.rootsFile },
  });
  // Without root of the machine its start has a warning.
  const started = agent.here();
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);

  const issued = (pod: typeof client) => ca.seen.filter(({ identity }) => identity === identityOf(pod)).length;
  let requests = 0;
  let last = Number.POSITIVE_INFINITY;
  // Every certificate that is there now has ended then.
  const outlived = Date.now() + TTL_MS;
  const load = Array.from({ length: 6 }, async (_, talker) => {
    while (requests < last || Date.now() < outlived) {
      // On with the certificates that came, without taking the processors from others.
      if (requests >= last) await delay(20);
      if (last === Number.POSITIVE_INFINITY && issued(client) > 1 && issued(server) > 1) last = requests + MORE;
      const text = `request ${requests++} of ${talker}`;
      assert.equal(await exchange(dial(client, server.ipv4, 8080), text), text);
    }
  });
  // A connection that outlives every certificate that was there when it was made.
  const long = dial(client, server.ipv4, 8080);
  long.send('first');
  assert.equal(await long.text(5), 'first');
  await Promise.all(load);
  long.send('still');
  assert.equal(await long.text(5), 'still');

  t.diagnostic(`${requests} requests while each of two certificates was renewed`);
  const complaints = agent
    .output()
    .slice(started)
    .split('\n')
    .filter((line) => /\t(error|warn)\t/.test(line));
  assert.deepEqual(complaints, []);
});

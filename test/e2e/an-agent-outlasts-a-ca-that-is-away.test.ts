import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { freePort } from '../support/free-ports.ts';
import { makeTestCa, startTestCa, type TestCa } from '../support/istio-ca-server.ts';
import { identityOf, meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';

test('an agent starts without its CA, says what is wrong, and serves pods as soon as the CA is right', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  await listenEcho(server, 8080);
  const right = join(network.folder, 'right');
  const wrong = join(network.folder, 'wrong');
  for (const folder of [right, wrong]) {
    mkdirSync(folder);
    makeTestCa(folder);
  }
  const token = join(network.folder, 'token');
  writeFileSync(token, 'expected-token\n');
  const port = await freePort();
  let ca: TestCa | null = null;
  network.defer(() => ca?.stop());

  const agent = await startAgent({
    network,
    caDir: '',
    mesh: { workloads: [client, server].map((pod) => workload(pod)) },
    env: {
      CA_ADDRESS: `https://127.0.0.1:${port}`,
      CA_ROOT_CA: join(right, 'root.crt'),
      AUTH_TOKEN: token,
      POD_NAME: 'culvert-x',
      POD_NAMESPACE: 'istio-system',
      SERVICE_ACCOUNT: 'ztunnel',
    },
  });
  for (const pod of [client, server]) await agent.enrol(pod);

  // Down: the agent is up, connections are refused with the reason, nothing waits for ever.
  await agent.line(`nothing listens at the CA's address 127.0.0.1:${port}`);
  await assert.rejects(exchange(dial(client, server.ipv4, 8080), 'too early'));
  const refused = await agent.access(({ field }) => field('direction') === 'outbound');
  assert.match(refused.field('error'), /no certificate for spiffe:.*nothing listens at the CA's address/);
  const [state] = (await agent.dump()).certificates;
  assert.match(state!.state, /^Unavailable: nothing listens/);

  // Wrong: another mesh answers there.
  const here = agent.here();
  ca = await startTestCa({ folder: wrong, port });
  await agent.until(
    'distrusted',
    async () => {
      await assert.rejects(exchange(dial(client, server.ipv4, 8080), 'to a stranger'));
      return agent.output().slice(here);
    },
    (output) => output.includes(`the CA server 127.0.0.1:${port} is not trusted`),
  );
  ca.stop();

  // Right, but slow, and it refuses the first requests as istiod does for a pod that it does not know yet.
  ca = await startTestCa({ folder: right, port, token: 'expected-token' });
  let refusals = 2;
  ca.behave(() =>
    refusals-- > 0
      ? { kind: 'refuse', code: 16, details: 'request impersonation authentication failure' }
      : { kind: 'issue', delayMs: 1500 },
  );
  await agent.until(
    'served',
    () => exchange(dial(client, server.ipv4, 8080), 'hello').catch((error: Error) => error.message),
    (answer) => answer === 'hello',
  );
  assert.match(agent.output(), /the CA does not let this agent ask for the certificates of pods/);
  assert.deepEqual(
    new Set(ca.seen.map(({ identity }) => identity)),
    new Set([client, server].map((pod) => identityOf(pod))),
  );
  assert.doesNotMatch(agent.output(), /expected-token|PRIVATE KEY/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho, type Talk } from '../support/pod-sockets.ts';

test('an agent that runs out of descriptors keeps the connections it has, and takes new ones once it can', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(client), workload(server)] },
    maxDescriptors: 160,
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  const first = dial(client, server.ipv4, 8080);
  await alive(first);

  const crowd: Talk[] = [];
  for (let i = 0; i < 200; i++) crowd.push(dial(client, server.ipv4, 8080));
  await agent.line('a listener rests because connections cannot be accepted');
  await alive(first);
  const answer = await agent.get('/config_dump').catch((error: Error) => error);
  t.diagnostic(answer instanceof Error ? answer.message : `config dump: ${answer.status}`);
  // A line now and then, not one for each attempt.
  const before = agent.here();
  const since = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const lines = agent
    .output()
    .slice(before)
    .split('\n')
    .filter((line) => line.includes('a listener rests'));
  const seconds = (performance.now() - since) / 1000;
  assert.ok(lines.length <= 40 * seconds, `${lines.length} lines in ${seconds} s`);

  for (const { socket } of crowd) socket.destroy();
  await agent.until(
    'taking connections again',
    async () => {
      try {
        return await exchange(dial(client, server.ipv4, 8080), 'hello');
      } catch (error) {
        return (error as Error).message;
      }
    },
    (said) => said === 'hello',
  );
  await alive(first);
  assert.equal((await agent.ready()).status, 200);
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

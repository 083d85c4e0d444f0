import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho, type Talk } from '../support/pod-sockets.ts';

/** As many listeners of a pod connections arrive at: one kind of them, of each of two threads. */
const LISTENERS = 2;

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
  // So that each thread has its tunnel: one that cannot be accepted is given up after ten seconds, with what waits for it.
  for (let i = 0; i < 20; i++) assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');

  const crowd: Talk[] = [];
  for (let i = 0; i < 200; i++) crowd.push(dial(client, server.ipv4, 8080));
  await agent.line('a listener rests because connections cannot be accepted');
  await alive(first);
  const answer = await agent.get('/config_dump').catch((error: Error) => error);
  t.diagnostic(answer instanceof Error ? answer.message : `config dump: ${answer.status}`);
  // It stays so for a while, in which a listener that does not rest shows itself.
  for (let round = 0; round < 10; round++) {
    await delay(100);
    for (let i = 0; i < 20; i++) crowd.push(dial(client, server.ipv4, 8080));
  }
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
  // A line now and then, by the agent's own clock, and not one for each attempt.
  const lines = agent.output().split('\n');
  for (const pod of [client, server]) {
    const times = lines
      .filter((line) => line.includes('a listener rests') && line.includes(`uid-${pod.name}`))
      .map((line) => Date.parse(line.split('\t')[0]!));
    const seconds = times.length === 0 ? 0 : (Math.max(...times) - Math.min(...times)) / 1000;
    t.diagnostic(`${pod.name}: ${times.length} lines in ${seconds} s`);
    // Twice of what it is, and some: a timer counts from the begin of the loop's turn, which may have stood still since.
    assert.ok(times.length <= LISTENERS * (20 * seconds + 5), `${times.length} lines in ${seconds} s`);
  }
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

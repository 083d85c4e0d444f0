import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho, type Talk } from '../support/pod-sockets.ts';

/**
 * The application sees the client's address: the agent connects to it from that address, with a port of its own choice.
 * Were it one that the client itself uses towards this pod, conntrack would take the two connections for one.
 */
test('a connection from outside never shares its ports with what the agent makes in its name', async (t) => {
  const network = await meshNetwork(t);
  const outside = await network.addPod('outside');
  const server = await network.addPod('server');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(server), workload(outside, { protocol: 'TCP' })] },
  });
  await agent.enrol(server);
  await listenEcho(server, 8080);
  // Few ports, the same for both, so that chance cannot hide it.
  for (const pod of [outside, server]) {
    await pod.run(['sh', '-c', 'echo "40000 40127" > /proc/sys/net/ipv4/ip_local_port_range']);
  }
  const held: Talk[] = [];
  for (let i = 0; i < 30; i++) {
    const connection = dial(outside, server.ipv4, 8080);
    connection.send('held');
    assert.equal(await connection.text(4), 'held', `connection ${i}`);
    held.push(connection);
  }
  for (let i = 0; i < 30; i++) {
    assert.equal(await exchange(dial(outside, server.ipv4, 8080), 'hello'), 'hello', `connection ${30 + i}`);
  }
  for (const connection of held) assert.equal(await exchange(connection, 'bye'), 'bye');
});

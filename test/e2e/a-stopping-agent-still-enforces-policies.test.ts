import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Mesh, meshNetwork, policy, startAgent, workload } from '../support/mesh.ts';
import { dial, fate, listenEcho } from '../support/pod-sockets.ts';

test('a connection that is denied while the agent stops does not last until the deadline', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  await listenEcho(server, 8080);
  const mesh = (policies: NonNullable<Mesh['policies']>): Mesh => ({
    workloads: [workload(client), workload(server)],
    policies,
  });
  const agent = await startAgent({ network, mesh: mesh([]), env: { CONNECTION_TERMINATION_DEADLINE: '150s' } });
  for (const pod of [client, server]) await agent.enrol(pod);
  const connection = dial(client, server.ipv4, 8080);
  connection.send('hello');
  assert.equal(await connection.text(5), 'hello');

  const stopped = agent.stop();
  await agent.line('shutting down');
  connection.send('still');
  assert.equal(await connection.text(5), 'still');
  agent.writeMesh(mesh([policy('deny', 'Namespace', 'Deny', [{ destinationPorts: [8080] }])]));
  assert.equal(await fate(connection), 'ECONNRESET');
  assert.equal(await stopped, 0);
  const line = await agent.access(({ field }) => field('direction') === 'inbound');
  assert.equal(line.field('error'), 'connection closed due to policy change');
});

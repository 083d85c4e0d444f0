import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Mesh, meshNetwork, meshText, policy, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho, type Talk } from '../support/pod-sockets.ts';

test('a broken mesh file is reported by line and column, and the last good state stays', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const good: Mesh = { workloads: [workload(client), workload(server)] };
  const denying: Mesh = { ...good, policies: [policy('none', 'Namespace', 'Deny', [{ destinationPorts: [8080] }])] };
  const agent = await startAgent({ network, mesh: good });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  const open = dial(client, server.ipv4, 8080);
  await alive(open);

  const mistakes = [
    { name: 'not YAML', text: 'workloads: [\n  {uid: a\n', place: /mesh\.yaml:\d+:\d+: / },
    {
      name: 'a field that does not exist',
      text: 'workloads:\n- name: x\n  namespace: demo\n  workloadIps: []\n  services: {}\n  colour: red\n',
      place: /mesh\.yaml:6:3: .*colour/,
    },
    {
      name: 'a bad address',
      text: 'workloads:\n- name: x\n  namespace: demo\n  workloadIps: [10.0.0.256]\n  services: {}\n',
      place: /mesh\.yaml:4:17: .*10\.0\.0\.256/,
    },
    {
      name: 'a policy with an unknown action',
      text: meshText({ policies: [{ ...denying.policies![0], action: 'Maybe' }] }),
      place: /mesh\.yaml:\d+:\d+: policies\[0\]\.action/,
    },
  ];
  for (const { name, text, place } of mistakes) {
    await t.test(name, async () => {
      const before = agent.here();
      agent.writeMesh(text);
      const line = await agent.line('local file rejected, the last good state stays', before);
      assert.match(line, /\terror\tstate\t/);
      assert.match(line, place);
      await alive(open);
      assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');
    });
  }

  await t.test('the file, once it is right, is applied', async () => {
    await agent.apply(denying);
    assert.equal(await fate(open), 'ECONNRESET');
    assert.equal(await fate(dial(client, server.ipv4, 8080)), 'ECONNRESET');
    await agent.apply(good);
    assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');
  });

  await t.test('a workload that the file learns of later is served from then on', async () => {
    const late = await network.addPod('late');
    await agent.enrol(late);
    // The agent waits for the mesh to know the pod, as the node agent is often faster.
    const waiting = exchange(dial(late, server.ipv4, 8080), 'patience');
    await agent.apply({ workloads: [...good.workloads!, workload(late)] });
    assert.equal(await waiting, 'patience');
  });
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

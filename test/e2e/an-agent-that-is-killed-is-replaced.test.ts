import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../cni/support/eventually.ts';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho } from '../support/pod-sockets.ts';

test('an agent that is killed leaks nothing, and the next one has its pods back', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const mesh = { workloads: [workload(client), workload(server)] };
  const killed = await startAgent({ network, name: 'killed', mesh });
  for (const pod of [client, server]) await killed.enrol(pod);
  await listenEcho(server, 8080);
  await listenEcho(outside, 8080);
  const held = dial(client, server.ipv4, 8080);
  held.send('held');
  assert.equal(await held.text(4), 'held');

  killed.child.kill('SIGKILL');
  await killed.exited;
  // Its connections end by the kernel, they do not hang; and while nobody carries them, none leaves or enters a pod past the mesh.
  assert.match(await fate(held), /^(fin|E)/);
  for (const [from, to] of [
    [client, server],
    [client, outside],
    [outside, server],
  ] as const) {
    assert.equal(await fate(dial(from, to.ipv4, 8080)), 'ECONNREFUSED', `${from.name} to ${to.name}`);
  }

  await eventually('the node agent has noticed', () => killed.zds.agents() === 0);
  const next = await startAgent({ network, name: 'next', mesh, besides: killed });
  await next.until(
    'ready',
    () => next.ready(),
    ({ status }) => status === 200,
  );
  assert.equal(await exchange(dial(client, server.ipv4, 8080), 'again'), 'again');
  const line = await next.access(({ field }) => field('src.workload') === 'client' && field('direction') === 'inbound');
  assert.match(line.field('src.identity') ?? '', /ns\/demo\/sa\/client$/);
  assert.equal(await exchange(dial(client, outside.ipv4, 8080), 'plain'), 'plain');
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openNetnsHandle } from '../../src/netns/handle.ts';
import { credentials, openTunnel, request } from '../support/hbone-client.ts';
import { identityOf, meshNetwork, noMoreThan, podInfo, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen, listenEcho, type Talk } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

test('pods come and go, and the others do not notice', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const doomed = await network.addPod('doomed');
  const crowded = await network.addPod('crowded');
  const outside = await network.addPod('outside');
  const agent = await startAgent({
    network,
    mesh: { workloads: [client, server, doomed, crowded].map((pod) => workload(pod)) },
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  for (const pod of [server, doomed, crowded]) {
    await listenEcho(pod, 8080);
  }
  const neighbour = dial(client, server.ipv4, 8080);
  await alive(neighbour);

  await t.test('a port taken by an application: refused, tried again every 5 s, served once it is free', async () => {
    const taken = await listen(crowded, 15008);
    const beginning = agent.here();
    await assert.rejects(agent.enrol(crowded), {
      code: 'ZDS_NACK',
      message: /^failure to start proxy : .*15008.*(EADDRINUSE|[Aa]ddress already in use)/,
    });
    const first = await agent.line('failed to start proxy', beginning);
    assert.equal((await agent.ready()).body, 'not ready, pending: workload proxy manager\n');
    assert.equal((await agent.dump()).workloadState['uid-crowded']?.state, 'Pending');
    assert.equal(total(await agent.metrics(), 'workload_manager_pending_proxy_count'), 1);
    // Nothing of the failed start stays behind: the other ports are free.
    for (const port of [15001, 15006]) (await listen(crowded, port)).close();
    await alive(neighbour);
    assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');
    const again = await agent.line('failed to start proxy', agent.output().indexOf(first) + first.length);
    const [before, after] = [first, again].map((line) => Date.parse(line.split('\t')[0]!)) as [number, number];
    assert.ok(after - before > 4900, `${after - before} ms`);
    taken.close();
    await agent.until(
      'ready',
      () => agent.ready(),
      ({ status }) => status === 200,
    );
    assert.equal(await exchange(dial(client, crowded.ipv4, 8080), 'hello'), 'hello');
    assert.equal((await agent.dump()).workloadState['uid-crowded']?.state, 'Up');
  });

  await t.test('a pod that is removed: its connections and listeners end at once', async () => {
    await agent.enrol(doomed);
    const into = dial(client, doomed.ipv4, 8080);
    await alive(into);
    const outOf = dial(doomed, server.ipv4, 8080);
    await alive(outOf);
    const tunnel = await openTunnel(outside, doomed.ipv4, await credentials(agent.caDir, identityOf(client)));
    const { stream } = await request(tunnel, `${doomed.ipv4}:8080`);
    stream.on('error', () => {});
    const gone = new Promise((resolve) => tunnel.once('close', resolve));
    await agent.zds.remove('uid-doomed');
    assert.equal(await fate(into), 'ECONNRESET');
    assert.equal(await fate(outOf), 'ECONNRESET');
    await gone;
    assert.equal((await agent.dump()).workloadState['uid-doomed'], undefined);
    // The capture rules are still there, so nobody listens where they lead.
    assert.equal(await fate(dial(doomed, server.ipv4, 8080)), 'ECONNREFUSED');
    assert.equal(await fate(dial(outside, doomed.ipv4, 8080)), 'ECONNREFUSED');
    await alive(neighbour);
    const line = await agent.access(
      ({ field }) => field('src.workload') === 'doomed' && field('direction') === 'outbound',
    );
    assert.equal(line.field('error'), 'connection closed due to connection drain');
  });

  await t.test('a pod that comes back is served anew', async () => {
    await agent.enrol(doomed);
    assert.equal(await exchange(dial(client, doomed.ipv4, 8080), 'again'), 'again');
    assert.equal(await exchange(dial(doomed, server.ipv4, 8080), 'again'), 'again');
  });

  await t.test('a namespace that vanishes while its pod is enrolled', async () => {
    const before = agent.descriptors();
    for (let i = 0; i < 5; i++) {
      const brief = await network.addPod(`brief-${i}`);
      const handle = openNetnsHandle(brief.netnsPath);
      const [enrolled] = await Promise.allSettled([
        agent.zds.add(podInfo(brief.name), handle),
        network.removePod(brief),
      ]);
      assert.equal(enrolled.status, 'fulfilled', String((enrolled as PromiseRejectedResult).reason));
      await agent.zds.remove(`uid-brief-${i}`);
    }
    await alive(neighbour);
    await agent.until('rid of descriptors', async () => agent.descriptors(), noMoreThan(before));
  });

  await t.test('a pod whose network goes away under its connections', async () => {
    const fleeting = await network.addPod('fleeting');
    await agent.enrol(fleeting);
    const before = agent.here();
    // Unknown to the mesh: refused after the wait for its workload, without harm to others.
    assert.equal(await fate(dial(fleeting, server.ipv4, 8080)), 'ECONNRESET');
    const line = await agent.access(({ field }) => field('direction') === 'outbound', before);
    assert.equal(line.field('error'), 'failed to fetch information about local workload: fleeting.demo (fleeting)');
    const hanging = dial(fleeting, server.ipv4, 8080);
    await network.removePod(fleeting);
    await agent.zds.remove('uid-fleeting');
    assert.match(await fate(hanging), /^E/);
    await alive(neighbour);
    neighbour.socket.destroy();
  });
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityOf, meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listen } from '../support/pod-sockets.ts';
import { matching } from '../support/samples.ts';

test('captured pods talk plain TCP with whoever is not captured', async (t) => {
  const network = await meshNetwork(t);
  const captured = await network.addPod('captured');
  const outside = await network.addPod('outside');
  const stranger = await network.addPod('stranger');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(captured), workload(outside, { protocol: 'TCP' })] },
  });
  await agent.enrol(captured);
  for (const pod of [captured, outside, stranger]) {
    await listen(pod, 8080, { serve: ({ socket, peer }) => socket.end(peer.ip) });
  }

  await t.test('a captured client reaches an uncaptured server, without identities', async () => {
    assert.equal(await exchange(dial(captured, outside.ipv4, 8080), 'hello'), captured.ipv4);
    const line = await agent.access(({ field }) => field('direction') === 'outbound');
    assert.equal(line.message, 'connection complete');
    assert.equal(line.level, 'info');
    assert.equal(line.field('dst.addr'), `${outside.ipv4}:8080`);
    assert.equal(line.field('src.workload'), 'captured');
    assert.equal(line.field('dst.workload'), 'outside');
    for (const absent of ['src.identity', 'dst.identity', 'dst.hbone_addr', 'dst.service']) {
      assert.ok(!line.names.includes(absent), line.text);
    }
    const [opened] = matching(await agent.metrics(), 'istio_tcp_connections_opened_total', { reporter: 'source' });
    const labels = Object.fromEntries(opened!.labels);
    assert.equal(labels.connection_security_policy, 'unknown');
    assert.equal(labels.source_principal, 'unknown');
    assert.equal(labels.destination_principal, identityOf(outside));
  });

  await t.test('an uncaptured client reaches a captured server, which sees the client’s address', async () => {
    for (const [from, to] of [
      [outside.ipv4, captured.ipv4],
      [outside.ipv6, captured.ipv6],
    ]) {
      if (to === null || from === null) continue;
      assert.equal(await exchange(dial(outside, to!, 8080), 'hello'), from);
    }
    // Threads write at their own pace: the one over IPv6 may be there first.
    const line = await agent.access(
      ({ field }) => field('direction') === 'inbound' && field('dst.addr') === `${captured.ipv4}:8080`,
    );
    assert.equal(line.field('src.workload'), 'outside');
    assert.equal(line.field('dst.workload'), 'captured');
    assert.equal(line.field('bytes_sent'), String(outside.ipv4.length));
    assert.equal(line.field('bytes_recv'), '5');
    for (const absent of ['src.identity', 'dst.identity', 'dst.hbone_addr']) {
      assert.ok(!line.names.includes(absent), line.text);
    }
  });

  await t.test('an address that the mesh does not know is passed through', async () => {
    for (const [from, to] of [
      [captured.ipv4, stranger.ipv4],
      [captured.ipv6, stranger.ipv6],
    ]) {
      if (to === null || from === null) continue;
      assert.equal(await exchange(dial(captured, to!, 8080), 'hello'), from);
    }
    const line = await agent.access(({ field }) => field('dst.addr') === `${stranger.ipv4}:8080`);
    assert.deepEqual(
      line.names.filter((name) => name.startsWith('dst.')),
      ['dst.addr'],
    );
  });

  await t.test('an unknown client reaches a captured server', async () => {
    assert.equal(await exchange(dial(stranger, captured.ipv4, 8080), 'hello'), stranger.ipv4);
    const line = await agent.access(({ field }) => field('src.addr').startsWith(`${stranger.ipv4}:`));
    assert.deepEqual(
      line.names.filter((name) => name.startsWith('src.')),
      ['src.addr'],
    );
  });

  await t.test('a pod that calls its own address does so without the agent', async () => {
    const before = agent.here();
    assert.equal(await exchange(dial(captured, captured.ipv4, 8080), 'hello'), captured.ipv4);
    assert.equal(await exchange(dial(captured, '127.0.0.1', 8080), 'hello'), '127.0.0.1');
    // Something that is logged for sure.
    await exchange(dial(captured, stranger.ipv4, 8080), 'hello');
    await agent.access(({ field }) => field('dst.addr') === `${stranger.ipv4}:8080`, before);
    await agent.atRest();
    // Lines of connections over IPv6 before may be late.
    const own = agent
      .output()
      .slice(before)
      .split('\n')
      .filter((line) => [captured.ipv4, '127.0.0.1'].some((ip) => line.includes(`src.addr=${ip}:`)));
    assert.equal(own.length, 1, own.join('\n'));
  });

  await t.test('a refused port is a reset for the client, and names the cause', async () => {
    for (const to of [outside, stranger]) {
      const connection = dial(captured, to.ipv4, 9);
      assert.equal(await connection.outcome(), 'ECONNRESET');
      const line = await agent.access(({ field }) => field('dst.addr') === `${to.ipv4}:9`);
      assert.equal(line.level, 'error');
      assert.equal(line.field('error'), 'io error: Connection refused (os error 111)');
    }
    const inbound = dial(outside, captured.ipv4, 9);
    assert.equal(await inbound.outcome(), 'ECONNRESET');
    const line = await agent.access(({ field }) => field('dst.addr') === `${captured.ipv4}:9`);
    assert.equal(line.field('error'), 'connection failed: Connection refused (os error 111)');
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';
import { total } from '../support/samples.ts';

test('calls to the agent’s own ports in pods end at once and never loop', async (t) => {
  const network = await meshNetwork(t);
  const captured = await network.addPod('captured');
  const other = await network.addPod('other');
  const outside = await network.addPod('outside');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(captured), workload(other), workload(outside, { protocol: 'TCP' })] },
    // What does not end by itself would outlast the patience of `outcome`.
    env: {
      CULVERT_CONNECT_TIMEOUT: '150s',
      CULVERT_CONNECT_ATTEMPT_TIMEOUT: '150s',
      CULVERT_CONNECT_RESPONSE_TIMEOUT: '150s',
    },
  });
  for (const pod of [captured, other]) await agent.enrol(pod);
  await listenEcho(other, 8080);

  const targets: { name: string; ips: (from: Pod) => (string | null)[] }[] = [
    { name: 'its own address', ips: (from) => [from.ipv4, from.ipv6] },
    { name: 'localhost', ips: (from) => ['127.0.0.1', from.ipv6 === null ? null : '::1'] },
    { name: 'another address of localhost', ips: () => ['127.0.0.2'] },
    { name: 'a captured pod', ips: () => [other.ipv4, other.ipv6] },
    { name: 'an uncaptured pod', ips: () => [outside.ipv4, outside.ipv6] },
  ];
  let calls = 0;
  for (const from of [captured, outside]) {
    for (const { name, ips } of targets) {
      for (const port of [15001, 15006, 15008]) {
        for (const ip of ips(from).filter((ip) => ip !== null)) {
          await t.test(`a ${from.name} pod calls ${name}, ${ip} port ${port}`, async () => {
            const connection = dial(from, ip, port);
            connection.send('GET / HTTP/1.1\r\nhost: self\r\n\r\n');
            const outcome = await connection.outcome();
            connection.socket.destroy();
            assert.match(outcome, /^(ECONNREFUSED|ECONNRESET|fin)$/);
            calls++;
          });
        }
      }
    }
  }

  await t.test('the side that was called refuses, and names the reason', async () => {
    for (const [direction, address] of [
      ['outbound', '127.0.0.1:15001'],
      ['outbound', `${captured.ipv4}:15001`],
      ['outbound', '127.0.0.2:15001'],
      ['inbound', '127.0.0.1:15006'],
      ['inbound', `${captured.ipv4}:15006`],
      ['inbound', `${other.ipv4}:15001`],
      ['inbound', `${other.ipv4}:15008`],
    ]) {
      const line = await agent.access(
        ({ field }) =>
          field('direction') === direction &&
          field('dst.addr') === address &&
          field('error') === 'attempted recursive call to ourselves',
      );
      assert.equal(line.level, 'warn');
      assert.equal(line.message, 'connection failed');
    }
  });

  await t.test('nothing goes on afterwards', async () => {
    await agent.until(
      'rid of all sockets but those of tunnels',
      () => agent.metrics(),
      (samples) =>
        total(samples, 'istio_tcp_sockets_open') === total(samples, 'culvert_tunnels_open', { role: 'server' }) &&
        total(samples, 'culvert_streams_open') === 0,
    );
    // What one connection through a tunnel leaves: a line of either side.
    const atMostTwoLinesPerCall = () => {
      const lines = agent.output().match(/\taccess\t/g) ?? [];
      assert.ok(lines.length <= 2 * calls, `${lines.length} lines of ${calls} calls`);
    };
    atMostTwoLinesPerCall();
    assert.equal(await exchange(dial(captured, other.ipv4, 8080), 'hello'), 'hello');
    calls++;
    const hboneAddress = `${other.ipv4}:8080`;
    for (const direction of ['outbound', 'inbound']) {
      await agent.access(({ field }) => field('direction') === direction && field('dst.hbone_addr') === hboneAddress);
    }
    atMostTwoLinesPerCall();
  });
});

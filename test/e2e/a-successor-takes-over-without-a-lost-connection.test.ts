import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';

test('a second agent takes over the pods of the first without a lost connection', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const mesh = {
    workloads: [
      workload(client),
      workload(server, { services: { 'demo/echo.demo.svc.cluster.local': { 80: 8080 } } }),
      workload(outside, { protocol: 'TCP' }),
    ],
    services: [service('echo', '10.96.0.10', { 80: 8080 })],
  };
  const first = await startAgent({ network, name: 'first', mesh, env: { CONNECTION_TERMINATION_DEADLINE: '150s' } });
  for (const pod of [client, server]) await first.enrol(pod);
  await listenEcho(server, 8080);

  // New connections all the time, from a captured pod and from outside.
  const results = { fine: 0, failed: [] as string[] };
  let stop = false;
  async function load(from: typeof client, ip: string, port: number): Promise<void> {
    while (!stop) {
      try {
        const answer = await exchange(dial(from, ip, port), 'hello');
        if (answer === 'hello') results.fine++;
        else results.failed.push(`answered ${JSON.stringify(answer)}`);
      } catch (error) {
        results.failed.push(`${from.name}: ${(error as Error).message}`);
      }
    }
  }
  const loads = [load(client, '10.96.0.10', 80), load(client, '10.96.0.10', 80), load(outside, server.ipv4, 8080)];
  const long = dial(client, '10.96.0.10', 80);
  long.send('held');
  assert.equal(await long.text(4), 'held');

  const second = await startAgent({ network, name: 'second', mesh, besides: first });
  await second.until(
    'ready',
    () => second.ready(),
    ({ status }) => status === 200,
  );
  const stopped = first.stop();
  await first.line('shutting down');
  await second.until(
    'serving',
    async () => results.fine,
    (() => {
      const before = results.fine;
      return (fine: number) => fine > before + 100;
    })(),
  );
  long.send('on');
  assert.equal(await long.text(2), 'on');
  assert.equal(await exchange(long, '.'), '.');
  assert.equal(await stopped, 0);
  stop = true;
  await Promise.all(loads);
  assert.deepEqual(results.failed, []);
  t.diagnostic(`${results.fine} connections`);
  assert.equal(await exchange(dial(client, '10.96.0.10', 80), 'after'), 'after');
  assert.doesNotMatch(first.output() + second.output(), /error="(?!.*drain)/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Explanation } from '../../src/explain/types.ts';
import { meshNetwork, service, startAgent, workload, workloadUid } from '../support/mesh.ts';
import { dial, exchange, fate, listen } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';
import { matching, total } from '../support/samples.ts';

const serving = (name: string) => ({ [`demo/${name}.demo.svc.cluster.local`]: { 80: 8080 } });
/** An address on the pods' link that nobody has: nothing answers. */
const nobodyBeside = ({ ipv4 }: Pod) => `${ipv4.slice(0, ipv4.lastIndexOf('.'))}.250`;

test('endpoints that cannot be reached fail no request, and are left out for a while', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const alive = await network.addPod('alive');
  // Part of the mesh, but not served by any agent: its tunnel port refuses.
  const refusing = await network.addPod('refusing');
  const silent = {
    ...workload(alive),
    uid: 'Kubernetes//Pod/demo/silent',
    name: 'silent',
    workloadIps: [nobodyBeside(alive)],
  };
  const mesh = {
    workloads: [
      workload(client),
      workload(alive, { services: { ...serving('half'), ...serving('slow'), ...serving('plain') } }),
      workload(refusing, { services: { ...serving('half'), ...serving('alone') } }),
      { ...silent, services: serving('slow') },
      {
        ...silent,
        uid: 'Kubernetes//Pod/demo/bare',
        name: 'bare',
        workloadIps: [refusing.ipv4],
        protocol: 'TCP',
        networkMode: 'HostNetwork',
        services: serving('plain'),
      },
    ],
    services: [
      service('half', '10.96.0.10', { 80: 8080 }),
      service('slow', '10.96.0.11', { 80: 8080 }),
      service('plain', '10.96.0.12', { 80: 8080 }),
      service('alone', '10.96.0.13', { 80: 8080 }),
    ],
  };
  const agent = await startAgent({
    network,
    mesh,
    env: { CULVERT_CONNECT_ATTEMPT_TIMEOUT: '2s', CULVERT_EJECTION_TIME: '1m' },
  });
  for (const pod of [client, alive]) await agent.enrol(pod);
  await listen(alive, 8080, { serve: ({ socket }) => socket.end('alive') });
  const ask = (address: string, count: number) =>
    Promise.all(Array.from({ length: count }, () => exchange(dial(client, address, 80), '')));

  await t.test('one that refuses the tunnel', async () => {
    for (let round = 0; round < 5; round++) {
      assert.deepEqual(await ask('10.96.0.10', 10), Array(10).fill('alive'));
    }
    const samples = await agent.metrics();
    assert.ok(total(samples, 'culvert_attempts_retried_total', { reason: 'tunnel-failed' }) >= 1);
    assert.ok(total(samples, 'culvert_endpoint_failures_total', { result: 'ejected' }) >= 1);
    assert.ok(total(samples, 'culvert_endpoints_ejected', {}) >= 1);
  });

  await t.test('the dump tells which, and for how long', async () => {
    const { workloadState } = await agent.dump();
    const [unhealthy] = workloadState['uid-client']!.unhealthyEndpoints!;
    assert.equal(unhealthy!.endpoint, `${refusing.ipv4}:8080`);
    assert.equal(unhealthy!.uid, workloadUid(refusing));
    assert.equal(unhealthy!.failures, 1);
    assert.ok(unhealthy!.ejectedFor > 10_000 && unhealthy!.ejectedFor <= 75_000, String(unhealthy!.ejectedFor));
    assert.ok([1, 2].includes(unhealthy!.worker));
    const { route } = JSON.parse((await agent.get('/explain?from=demo/client&to=half:80')).body) as Explanation;
    assert.ok(route.kind === 'tunnel');
    const { failing } = route.endpoints.find(({ uid }) => uid === workloadUid(refusing))!;
    assert.ok(failing.some(({ worker, failures }) => worker === unhealthy!.worker && failures === 1));
  });

  await t.test('while one is left out nothing is tried in vain', async () => {
    // Each thread finds out for itself.
    await agent.until(
      'known to both threads',
      async () => {
        await ask('10.96.0.10', 10);
        return (await agent.dump()).workloadState['uid-client']!.unhealthyEndpoints!;
      },
      (endpoints) => new Set(endpoints.map(({ worker }) => worker)).size === 2,
    );
    const retried = async () => total(await agent.metrics(), 'culvert_attempts_retried_total', {});
    const before = await retried();
    await ask('10.96.0.10', 20);
    assert.equal(await retried(), before);
  });

  await t.test('one that does not answer at all', async () => {
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(await ask('10.96.0.11', 5), Array(5).fill('alive'));
    }
    assert.ok(total(await agent.metrics(), 'culvert_attempts_retried_total', { reason: 'connect-failed' }) >= 1);
  });

  await t.test('one in plain TCP', async () => {
    for (let round = 0; round < 3; round++) {
      assert.deepEqual(await ask('10.96.0.12', 5), Array(5).fill('alive'));
    }
  });

  await t.test(
    'a request that was tried again is one connection of the client, to where it went in the end',
    async () => {
      const samples = await agent.metrics();
      const wanted = {
        reporter: 'source',
        destination_service: 'half.demo.svc.cluster.local',
        destination_workload: 'alive',
      };
      const asked = total(samples, 'istio_tcp_connections_opened_total', wanted);
      assert.ok(asked >= 70 && asked % 10 === 0, String(asked));
      assert.equal(total(samples, 'istio_tcp_connections_failed_total', { reporter: 'source' }), 0);
      for (const { labels } of matching(samples, 'istio_tcp_connections_closed_total', { reporter: 'source' })) {
        assert.equal(Object.fromEntries(labels).response_flags, '-');
      }
    },
  );

  await t.test('the last endpoint is never left out: its client hears of each failure', async () => {
    for (let round = 0; round < 3; round++) assert.equal(await fate(dial(client, '10.96.0.13', 80)), 'ECONNRESET');
    assert.ok(total(await agent.metrics(), 'culvert_endpoint_failures_total', { result: 'spared' }) >= 3);
  });

  await t.test('an endpoint that comes back is used when its time has passed', async () => {
    await agent.stop();
    const successor = await startAgent({ network, name: 'successor', mesh, env: { CULVERT_EJECTION_TIME: '50ms' } });
    for (const pod of [client, alive]) await successor.enrol(pod);
    assert.deepEqual(await ask('10.96.0.10', 10), Array(10).fill('alive'));
    await successor.enrol(refusing);
    await listen(refusing, 8080, { serve: ({ socket }) => socket.end('back') });
    await successor.until(
      'used',
      () => ask('10.96.0.10', 10),
      (answers) => answers.includes('back') && answers.includes('alive'),
    );
  });
});

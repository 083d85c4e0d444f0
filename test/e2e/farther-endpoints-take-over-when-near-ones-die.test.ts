import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Explanation } from '../../src/explain/types.ts';
import { meshNetwork, service, startAgent, workload, workloadUid } from '../support/mesh.ts';
import { dial, exchange, fate, listen } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

const VIP = '10.96.0.10';
const PINNED_VIP = '10.96.0.11';

test('when the endpoints of the own zone die those of the next zone, and of the next region, serve every request', async (t) => {
  const network = await meshNetwork(t);
  const places = {
    client: { region: 'r1', zone: 'z1' },
    near: { region: 'r1', zone: 'z1' },
    far: { region: 'r1', zone: 'z2' },
    abroad: { region: 'r2', zone: 'z3' },
  } as const;
  type Name = keyof typeof places;
  const names = Object.keys(places) as Name[];
  const pods = new Map<Name, Awaited<ReturnType<typeof network.addPod>>>();
  for (const name of names) pods.set(name, await network.addPod(name));
  const pod = (name: Name) => pods.get(name)!;
  const nearest = (mode: 'Failover' | 'Strict') => ({
    mode,
    routingPreferences: ['Network', 'Region', 'Zone'],
    healthPolicy: 'OnlyHealthy',
  });
  const agent = await startAgent({
    network,
    mesh: {
      workloads: names.map((name) =>
        workload(pod(name), {
          locality: places[name],
          services:
            name === 'client'
              ? {}
              : { 'demo/web.demo.svc.cluster.local': { 80: 8080 }, 'demo/pinned.demo.svc.cluster.local': { 80: 8080 } },
        }),
      ),
      services: [
        { ...service('web', VIP, { 80: 8080 }), loadBalancer: nearest('Failover') },
        { ...service('pinned', PINNED_VIP, { 80: 8080 }), loadBalancer: nearest('Strict') },
      ],
    },
    // An endpoint that was left out is tried again soon, so that one that is back is seen.
    env: {
      CULVERT_CONNECT_ATTEMPT_TIMEOUT: '2s',
      CULVERT_EJECTION_TIME: '2s',
      CULVERT_EJECTION_MAX_TIME: '2s',
    },
  });
  for (const name of names) await agent.enrol(pod(name));
  const serve = (name: Name) => listen(pod(name), 8080, { serve: ({ socket }) => socket.end(name) });
  const servers = new Map<Name, Awaited<ReturnType<typeof serve>>>();
  for (const name of names) servers.set(name, await serve(name));

  const ask = () => Promise.all(Array.from({ length: 10 }, () => exchange(dial(pod('client'), VIP, 80), '')));
  /** Every request of every round is served by one of the place. */
  async function allServedBy(name: Name): Promise<void> {
    for (let round = 0; round < 3; round++) assert.deepEqual(await ask(), Array(10).fill(name));
  }

  await t.test('while it lives the nearest alone serves, and the explanation says so', async () => {
    await allServedBy('near');
    const { route } = JSON.parse((await agent.get('/explain?from=demo/client&to=web:80')).body) as Explanation;
    assert.ok(route.kind === 'tunnel');
    assert.deepEqual(
      route.endpoints.map(({ uid, share }) => [uid, share]),
      [
        [workloadUid(pod('near')), 1],
        [workloadUid(pod('far')), 0],
        [workloadUid(pod('abroad')), 0],
      ],
    );
  });

  await t.test('its application dies: the next zone takes over', async () => {
    servers.get('near')!.close();
    await allServedBy('far');
    assert.ok(total(await agent.metrics(), 'culvert_attempts_retried_total', {}) >= 1);
  });

  await t.test('the next zone vanishes without a word: the next region takes over', async () => {
    await pod('far').run(['ip', 'link', 'set', 'eth0', 'down']);
    await allServedBy('abroad');
  });

  await t.test('where only the own zone may serve nobody else does', async () => {
    assert.equal(await fate(dial(pod('client'), PINNED_VIP, 80)), 'ECONNRESET');
  });

  await t.test('the nearest is back: it takes over again', async () => {
    servers.set('near', await serve('near'));
    await agent.until(
      'back, in every thread that has missed it',
      async () => {
        const answers = await ask();
        const { unhealthyEndpoints = [] } = (await agent.dump()).workloadState['uid-client']!;
        return { answers, unhealthy: unhealthyEndpoints.map(({ uid }) => uid) };
      },
      ({ answers, unhealthy }) =>
        answers.every((answer) => answer === 'near') && !unhealthy.includes(workloadUid(pod('near'))),
    );
    await allServedBy('near');
  });

  await t.test('none of it failed a request', async () => {
    const failed = { reporter: 'source', destination_service: 'web.demo.svc.cluster.local' };
    assert.equal(total(await agent.metrics(), 'istio_tcp_connections_failed_total', failed), 0);
  });
});

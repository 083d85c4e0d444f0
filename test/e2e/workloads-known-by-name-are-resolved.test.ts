import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Explanation } from '../../src/explain/types.ts';
import { dnsServer } from '../support/dns-server.ts';
import { meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';

const DATABASE_VIP = '10.96.0.20';
const WEB_VIP = '10.96.0.21';
const DATABASE = 'db.example.com';
const WEB = 'web.example.com';

/** The entry of something that is known by its name only. */
function named(pod: Pod, hostname: string, name: string, more: Readonly<Record<string, unknown>>) {
  return {
    ...workload(pod, { services: { [`demo/${name}.demo.svc.cluster.local`]: { 80: 8080 } } }),
    uid: `Kubernetes/networking.istio.io/ServiceEntry/demo/${name}`,
    name,
    workloadIps: [],
    hostname,
    ...more,
  };
}

test('a workload that the mesh knows by its name is reached where DNS says it is', async (t) => {
  const dns = await dnsServer(t);
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const first = await network.addPod('first');
  const second = await network.addPod('second');
  const web = await network.addPod('web');
  dns.records.set(DATABASE, [first.ipv4]);
  dns.records.set(WEB, [web.ipv4]);
  const agent = await startAgent({
    network,
    resolver: dns.ip,
    mesh: {
      workloads: [
        workload(client),
        workload(web),
        named(first, DATABASE, 'database', { protocol: 'TCP' }),
        named(web, WEB, 'web-by-name', {}),
      ],
      services: [service('database', DATABASE_VIP, { 80: 8080 }), service('web-by-name', WEB_VIP, { 80: 8080 })],
    },
  });
  for (const pod of [client, web]) await agent.enrol(pod);
  for (const pod of [first, second, web])
    await listen(pod, 8080, { serve: ({ socket }) => socket.end(`from ${pod.name}`) });
  const ask = (vip: string) => exchange(dial(client, vip, 80), '');

  await t.test('in plain TCP, and its entry is named in the log', async () => {
    assert.equal(await ask(DATABASE_VIP), 'from first');
    const line = await agent.access(({ field }) => field('dst.service') === 'database.demo.svc.cluster.local');
    assert.equal(line.field('dst.addr'), `${first.ipv4}:8080`);
    assert.equal(line.field('dst.workload'), 'database');
  });

  await t.test('through a tunnel that proves its identity', async () => {
    assert.equal(await ask(WEB_VIP), 'from web');
    const line = await agent.access(
      ({ field }) => field('direction') === 'outbound' && field('dst.service') === 'web-by-name.demo.svc.cluster.local',
    );
    assert.equal(line.field('dst.hbone_addr'), `${web.ipv4}:8080`);
    assert.equal(line.field('dst.identity'), 'spiffe://cluster.local/ns/demo/sa/web');
  });

  await t.test('and explained with the address that the name has now', async () => {
    const asked = await agent.get(`/explain?from=demo/client&to=${DATABASE_VIP}:80`);
    const { route } = JSON.parse(asked.body) as Explanation;
    assert.ok(route.kind === 'plain', asked.body);
    assert.deepEqual(
      route.endpoints.map(({ hostname, address }) => [hostname, address]),
      [[DATABASE, `${first.ipv4}:8080`]],
    );
  });

  await t.test('a new address of the name is followed', async () => {
    dns.records.set(DATABASE, [second.ipv4]);
    await agent.until(
      'the second one answers',
      () => ask(DATABASE_VIP),
      (answer) => answer === 'from second',
    );
  });

  await t.test('a name that is gone is refused with what DNS said', async () => {
    dns.records.delete(DATABASE);
    await agent.until(
      'the connection is refused',
      () => fate(dial(client, DATABASE_VIP, 80)),
      (outcome) => outcome !== 'fin',
    );
    await agent.line(`${DATABASE}: ENOTFOUND`);
    assert.equal(await ask(WEB_VIP), 'from web');
  });
});

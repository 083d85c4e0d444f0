import assert from 'node:assert/strict';
import { test } from 'node:test';
import { credentials, openTunnel, request } from '../support/hbone-client.ts';
import { identityOf, meshNetwork, policy, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho } from '../support/pod-sockets.ts';
import { matching } from '../support/samples.ts';

const PORTS = [8080, 8081, 9000];

test('policies decide who may connect', async (t) => {
  const network = await meshNetwork(t);
  const friend = await network.addPod('friend');
  const other = await network.addPod('other');
  const evil = await network.addPod('evil');
  const outside = await network.addPod('outside');
  const server = await network.addPod('server');
  const strict = await network.addPod('strict');
  const open = await network.addPod('open');
  const agent = await startAgent({
    network,
    mesh: {
      workloads: [
        workload(friend),
        workload(other),
        workload(evil, { namespace: 'evil' }),
        workload(outside, { protocol: 'TCP' }),
        workload(server, { authorizationPolicies: ['demo/allow', 'demo/not-9000'] }),
        workload(strict, { authorizationPolicies: ['demo/strict'] }),
        workload(open),
      ],
      policies: [
        policy('allow', 'WorkloadSelector', 'Allow', [
          { principals: [{ Exact: 'cluster.local/ns/demo/sa/friend' }] },
          { sourceIps: [outside.ipv4], destinationPorts: [8081] },
          { namespaces: [{ Exact: 'evil' }] },
        ]),
        policy('not-9000', 'WorkloadSelector', 'Deny', [{ destinationPorts: [9000] }]),
        policy('strict', 'WorkloadSelector', 'Deny', [{ notPrincipals: [{ Presence: [] }] }]),
        policy('no-evil', 'Namespace', 'Deny', [{ namespaces: [{ Exact: 'evil' }] }]),
      ],
    },
  });
  for (const pod of [friend, other, server, strict, open]) await agent.enrol(pod);
  await agent.enrol(evil, { uid: 'uid-evil', name: 'evil', namespace: 'evil', serviceAccount: 'evil' });
  for (const pod of [server, strict, open]) {
    for (const port of PORTS) {
      await listenEcho(pod, port);
    }
  }

  const none = 'allow policies exist, but none allowed';
  const denied = (name: string) => `explicitly denied by: demo/${name}`;
  const table = [
    { from: friend, to: server, port: 8080, denied: null },
    { from: friend, to: server, port: 8081, denied: null },
    { from: friend, to: server, port: 9000, denied: denied('not-9000') },
    { from: other, to: server, port: 8080, denied: none },
    { from: evil, to: server, port: 8080, denied: denied('no-evil') },
    { from: evil, to: open, port: 8080, denied: denied('no-evil') },
    { from: outside, to: server, port: 8080, denied: none },
    { from: outside, to: server, port: 8081, denied: null },
    { from: outside, to: strict, port: 8080, denied: denied('strict') },
    { from: outside, to: open, port: 8080, denied: null },
    { from: friend, to: strict, port: 8080, denied: null },
    { from: other, to: open, port: 9000, denied: null },
  ];
  for (const { from, to, port, denied } of table) {
    await t.test(`${from.name} to ${to.name}:${port} is ${denied ?? 'allowed'}`, async () => {
      const before = agent.here();
      const connection = dial(from, to.ipv4, port);
      if (denied === null) {
        assert.equal(await exchange(connection, 'hello'), 'hello');
        return;
      }
      assert.equal(await fate(connection), 'ECONNRESET');
      const line = await agent.access(({ field }) => field('direction') === 'inbound' && field('error') !== '', before);
      assert.equal(line.level, 'error');
      assert.equal(line.message, 'connection complete');
      assert.equal(line.field('error'), `connection closed due to policy rejection: ${denied}`);
      assert.equal(line.field('dst.workload'), to.name);
      assert.equal(
        line.field('src.identity'),
        from === outside ? '' : identityOf(from, from === evil ? 'evil' : 'demo'),
      );
      if (from === outside) return;
      const client = await agent.access(
        ({ field }) => field('direction') === 'outbound' && field('error') !== '',
        before,
      );
      assert.equal(client.field('error'), 'http status: 401 Unauthorized');
    });
  }

  await t.test(
    'a denied connection counts as failed, with DENY at the destination and CONNECT at the source',
    async () => {
      const samples = await agent.metrics();
      const flags = (name: string, reporter: string) =>
        matching(samples, name, { reporter, source_workload: 'other', destination_workload: 'server' }).map(
          ({ labels, value }) => [Object.fromEntries(labels).response_flags, value],
        );
      for (const [reporter, flag] of [
        ['destination', 'DENY'],
        ['source', 'CONNECT'],
      ] as const) {
        assert.deepEqual(flags('istio_tcp_connections_opened_total', reporter), [['-', 1]]);
        assert.deepEqual(flags('istio_tcp_connections_closed_total', reporter), [[flag, 1]]);
        assert.deepEqual(flags('istio_tcp_connections_failed_total', reporter), [[flag, 1]]);
      }
    },
  );

  await t.test('an independent HBONE client gets 401, and 200 with the right certificate', async () => {
    for (const [identity, status] of [
      [identityOf(other), 401],
      ['spiffe://cluster.local/ns/evil/sa/anyone', 401],
      [identityOf(friend), 200],
    ] as const) {
      const session = await openTunnel(outside, server.ipv4, await credentials(agent.caDir, identity));
      const answer = await request(session, `${server.ipv4}:8080`);
      assert.equal(answer.status, status, identity);
      assert.equal(answer.headers.baggage !== undefined, status === 200);
      session.destroy();
    }
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Mesh, meshNetwork, policy, startAgent, workload } from '../support/mesh.ts';
import { dial, fate, listenEcho, type Talk } from '../support/pod-sockets.ts';
import { matching } from '../support/samples.ts';

test('an edit of the policies cuts exactly the live connections that are denied now', async (t) => {
  const network = await meshNetwork(t);
  const [client, sibling, outside, server] = await Promise.all(
    ['client', 'sibling', 'outside', 'server'].map((name) => network.addPod(name)),
  );
  const mesh = (policies: Mesh['policies'] = [], attached: string[] = []): Mesh => ({
    workloads: [
      workload(client!),
      workload(sibling!),
      workload(outside!, { protocol: 'TCP' }),
      workload(server!, { authorizationPolicies: attached }),
    ],
    policies,
  });
  const deny = (...matches: Record<string, unknown>[]) => policy('deny', 'WorkloadSelector', 'Deny', matches);
  const agent = await startAgent({ network, mesh: mesh() });
  for (const pod of [client!, sibling!, server!]) await agent.enrol(pod);
  for (const port of [8080, 8081]) {
    await listenEcho(server!, port);
  }

  async function connect(from = client!, port = 8080): Promise<Talk> {
    const connection = dial(from, server!.ipv4, port);
    await alive(connection);
    return connection;
  }

  await t.test('by port: the sibling through the same tunnel lives', async () => {
    const [cut, lives] = [await connect(client, 8080), await connect(client, 8081)];
    await agent.apply(mesh([deny({ destinationPorts: [8080] })], ['demo/deny']));
    assert.equal(await fate(cut), 'ECONNRESET');
    await alive(lives);
    lives.socket.destroy();
    const line = await agent.access(({ field }) => field('direction') === 'inbound' && field('error') !== '');
    assert.equal(line.field('error'), 'connection closed due to policy change');
    assert.equal(line.field('dst.hbone_addr'), `${server!.ipv4}:8080`);
    assert.equal(line.level, 'error');
  });

  await t.test('by identity, with a policy that is newly attached', async () => {
    await agent.apply(mesh([deny({ principals: [{ Suffix: '/sa/client' }] })]));
    const [cut, lives] = [await connect(client), await connect(sibling)];
    await agent.apply(mesh([deny({ principals: [{ Suffix: '/sa/client' }] })], ['demo/deny']));
    assert.equal(await fate(cut), 'ECONNRESET');
    await alive(lives);
    lives.socket.destroy();
  });

  await t.test('plain connections as well', async () => {
    await agent.apply(mesh());
    const [cut, lives] = [await connect(outside), await connect(client)];
    await agent.apply(mesh([policy('strict', 'Namespace', 'Deny', [{ notPrincipals: [{ Presence: [] }] }])]));
    assert.equal(await fate(cut), 'ECONNRESET');
    await alive(lives);
    lives.socket.destroy();
  });

  await t.test('an edit that denies nothing cuts nothing', async () => {
    await agent.apply(mesh());
    const lives = await connect(client);
    await agent.apply(mesh([deny({ destinationPorts: [1] })], ['demo/deny']));
    await alive(lives);
    lives.socket.destroy();
  });

  await t.test('an ALLOW that does not name them any more cuts those it let in', async () => {
    const allow = (...accounts: string[]) =>
      policy('allow', 'WorkloadSelector', 'Allow', [
        { serviceAccounts: accounts.map((serviceAccount) => ({ namespace: 'demo', serviceAccount })) },
      ]);
    await agent.apply(mesh([allow('client', 'sibling')], ['demo/allow']));
    const [cut, lives] = [await connect(client), await connect(sibling)];
    await agent.apply(mesh([allow('sibling')], ['demo/allow']));
    assert.equal(await fate(cut), 'ECONNRESET');
    await alive(lives);
    lives.socket.destroy();
  });

  await t.test('a policy that is moved to the whole mesh, and one that is let go of in dry run', async () => {
    const deny = (scope: 'Global' | 'WorkloadSelector', dryRun = false) => ({
      ...policy('deny', scope, 'Deny', [{ principals: [{ Suffix: '/sa/client' }], destinationPorts: [8080] }]),
      dryRun,
    });
    await agent.apply(mesh([deny('WorkloadSelector')]));
    const [cut, lives] = [await connect(client, 8080), await connect(client, 8081)];
    await agent.apply(mesh([deny('Global', true)]));
    await alive(cut);
    await agent.apply(mesh([deny('Global')]));
    assert.equal(await fate(cut), 'ECONNRESET');
    await alive(lives);
    lives.socket.destroy();
  });

  await t.test('a policy that is attached but does not exist denies, cuts, and is reported', async () => {
    await agent.apply(mesh());
    const cut = await connect(client);
    await agent.apply(mesh([], ['demo/unknown']));
    assert.equal(await fate(cut), 'ECONNRESET');
    const line = await agent.line('a policy cannot be enforced');
    assert.match(line, /warn\trbac\t.*policy="demo\/unknown" reason="it is listed for a workload, but not known"/);
    assert.deepEqual((await agent.dump()).policyRefusals, [
      { kind: 'unknown', policy: 'demo/unknown', reason: 'it is listed for a workload, but not known' },
    ]);
    const notEnforced = async () => {
      const samples = matching(await agent.metrics(), 'culvert_policies_not_enforced', { reason: 'unknown' });
      return samples.map(({ value }) => value);
    };
    assert.deepEqual(await notEnforced(), [1]);
    await agent.apply(mesh());
    (await connect(client)).socket.destroy();
    assert.deepEqual(await notEnforced(), [0]);
    assert.equal((await agent.dump()).policyRefusals, undefined);
  });
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

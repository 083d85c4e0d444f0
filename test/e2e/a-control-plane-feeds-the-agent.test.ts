import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAuthority } from '../native/authority.ts';
import { freePort, freePorts } from '../support/free-ports.ts';
import { startIstiod } from '../support/istiod.ts';
import { asResources } from '../support/istiod-mesh.ts';
import { type Mesh, meshNetwork, policy, service, startAgent, workload } from '../support/mesh.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { dial, exchange, fate, listen, listenEcho } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

test('an agent takes its mesh state from a control plane that comes, changes, goes and comes back', async (t) => {
  const network = await meshNetwork(t);
  const [client, server, local] = [
    await network.addPod('client'),
    await network.addPod('server'),
    await network.addPod('local'),
  ];
  const services = { 'demo/echo.demo.svc.cluster.local': { 80: 8080 } };
  const mesh = {
    workloads: [workload(client), workload(server, { services })],
    services: [service('echo', '10.96.0.10', { 80: 8080 })],
  } satisfies Mesh;
  const authority = createAuthority();
  const port = await freePort();
  const startControlPlane = async () => {
    const istiod = await startIstiod({ port, authority, token: 'agent-token' });
    network.defer(() => istiod.stop());
    return istiod;
  };
  const ports = await freePorts(3);
  const [adminPort, , readinessPort] = ports as [number, number, number];
  const starting = startAgent({
    network,
    // The local file adds to what the control plane says.
    mesh: { workloads: [workload(local)] },
    env: {
      XDS_ADDRESS: `localhost:${port}`,
      XDS_ROOT_CA: authority.rootPem,
      AUTH_TOKEN: 'agent-token',
      POD_NAME: 'ztunnel-x',
      POD_NAMESPACE: 'istio-system',
      INSTANCE_IP: '10.0.0.9',
      ISTIO_META_ISTIO_VERSION: '1.99',
    },
    ports,
  });
  starting.catch(() => {});
  const http = (path: string, at = adminPort) =>
    fetch(`http://127.0.0.1:${at}${path}`).then(
      async (answer) => ({ status: answer.status, body: await answer.text() }),
      () => null,
    );

  const isNotReady = async () => {
    const ready = await http('/healthz/ready', readinessPort);
    assert.equal(ready!.status, 500);
    assert.match(ready!.body, /state manager/);
  };

  await t.test('without it, the agent waits: not ready, no pods, and it says why', async () => {
    const status = await asked(
      () => http('/xds'),
      (answer) => answer !== null && JSON.parse(answer.body).lastError !== null,
    );
    assert.match(
      JSON.parse(status!.body).lastError,
      new RegExp(
        `^nothing listens at the control plane's address localhost:${port}: check XDS_ADDRESS, and that istiod`,
      ),
    );
    await isNotReady();
  });

  await t.test('a stranger at its address is not believed', async () => {
    const stranger = await startIstiod({ port });
    network.defer(() => stranger.stop());
    stranger.change(asResources(mesh));
    const status = await asked(
      () => http('/xds'),
      (answer) => JSON.parse(answer!.body).lastError.includes('is not trusted'),
    );
    assert.match(JSON.parse(status!.body).lastError, /not signed by a root of XDS_ROOT_CA/);
    assert.equal(stranger.headers.length, 0, 'it got the token');
    await isNotReady();
    await stranger.stop();
  });

  let istiod = await startControlPlane();
  istiod.answers.addresses = false;
  istiod.change(asResources(mesh));
  await t.test('one that is slow is waited for', async () => {
    await istiod.request('an ACK', ({ nonce }) => nonce !== '');
    const status = await http('/xds');
    const { connection, synced, types } = JSON.parse(status!.body);
    assert.deepEqual([connection, synced, types.Address.lastPush], ['connected', false, null]);
    await isNotReady();
    istiod.answers.addresses = true;
    istiod.endStreams();
  });

  const agent = await starting;

  await t.test('once it is there, the agent is ready and traffic flows', async () => {
    for (const pod of [client, server, local]) await agent.enrol(pod);
    await agent.until(
      'ready',
      () => agent.ready(),
      ({ status }) => status === 200,
    );
    await listenEcho(server, 8080);
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), 'hello'), 'hello');
    const line = await agent.access(({ field }) => field('direction') === 'outbound');
    assert.equal(line.field('dst.service'), 'echo.demo.svc.cluster.local');
    const { node } = istiod.requests[0]!;
    assert.equal(node!.id, 'ztunnel~10.0.0.9~ztunnel-x.istio-system~istio-system.svc.cluster.local');
    assert.equal(node!.metadata.NODE_NAME, 'node-a');
    assert.equal(node!.metadata.ISTIO_VERSION, '1.99');
    // Attempts without a control plane are not a line each, but each kind of trouble is one, which is said again only after a minute.
    const told = [
      ...agent.output().matchAll(/no mesh state from the control plane.*error="([^"]*)" since="?[0-5]?\ds/g),
    ].map(([, why]) => why);
    assert.ok(told.length >= 2, agent.output());
    assert.deepEqual(told, [...new Set(told)]);
  });

  await t.test('a pod of the local file is served beside those of the control plane', async () => {
    assert.equal(await exchange(dial(local, server.ipv4, 8080), 'hello'), 'hello');
    const inbound = await agent.access(
      ({ field }) => field('direction') === 'inbound' && field('src.workload') === 'local',
    );
    assert.equal(inbound.field('src.identity'), 'spiffe://cluster.local/ns/demo/sa/local');
    assert.equal((await agent.dump()).staticConfig.workloads.length, 1);
  });

  await t.test('a change is in force at once: a policy cuts who is denied now', async () => {
    const connection = dial(client, server.ipv4, 8080);
    connection.send('x');
    await connection.read(1);
    const denied = policy('deny', 'Namespace', 'Deny', [{ destinationPorts: [8080] }]);
    istiod.push(asResources({ policies: [denied] }));
    assert.equal(await fate(connection), 'ECONNRESET');
    istiod.push({ policies: { 'demo/deny': null } });
    await agent.until(
      'rid of the policy',
      () => agent.dump(),
      ({ policies }) => policies.length === 0,
    );
    assert.equal(await exchange(dial(client, server.ipv4, 8080), 'again'), 'again');
  });

  await t.test('its restart fails no request, and what changed meanwhile is caught up with', async () => {
    await listen(server, 8081, { serve: ({ socket }) => socket.end('late') });
    let stop = false;
    const failures: string[] = [];
    let requests = 0;
    const traffic = Array.from({ length: 4 }, async () => {
      while (!stop) {
        const said = await exchange(dial(client, '10.96.0.10', 80), 'ping').catch((error: Error) => error.message);
        requests++;
        if (said !== 'ping') failures.push(said);
      }
    });
    const from = agent.here();
    await istiod.stop();
    await agent.line('no mesh state from the control plane', from);
    istiod = await startControlPlane();
    istiod.change(asResources({ ...mesh, services: [...mesh.services, service('late', '10.96.0.11', { 80: 8081 })] }));
    istiod.change(
      asResources({
        workloads: [workload(server, { services: { ...services, 'demo/late.demo.svc.cluster.local': { 80: 8081 } } })],
      }),
    );
    await agent.line('the control plane is back', from);
    assert.equal(await exchange(dial(client, '10.96.0.11', 80), ''), 'late');
    await asked(
      async () => requests,
      (count) => count > 50,
    );
    stop = true;
    await Promise.all(traffic);
    assert.deepEqual(failures, []);
    assert.ok(requests > 50, `${requests} requests`);
  });

  await t.test('what happened is in the metrics and in the admin interface', async () => {
    const samples = await agent.metrics();
    const url = 'type.googleapis.com/istio.workload.Address';
    assert.ok(total(samples, 'istio_xds_message_total', { url }) >= 2);
    assert.ok(total(samples, 'istio_xds_message_bytes_total', { url }) > 0);
    assert.ok(total(samples, 'istio_xds_connection_terminations_total', { reason: 'ConnectionError' }) > 0);
    assert.equal(total(samples, 'culvert_xds_connected', {}), 1);
    assert.equal(total(samples, 'culvert_xds_resources', { url }), 4);
    const { xds } = await agent.dump();
    assert.equal(xds!.connection, 'connected');
    assert.equal(xds!.synced, true);
    assert.equal(xds!.types.Address!.resources, 4);
    assert.deepEqual(JSON.parse((await agent.get('/xds')).body), xds);
    assert.doesNotMatch(JSON.stringify(await agent.dump()), /agent-token/);
    assert.doesNotMatch(agent.output(), /agent-token/);
  });
});

async function asked<T>(ask: () => Promise<T>, satisfies: (answer: T) => boolean): Promise<T> {
  for (const end = performance.now() + PATIENCE_MS; ; ) {
    const answer = await ask();
    if (satisfies(answer) || performance.now() > end) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../cni/support/eventually.ts';
import { runCulvert } from '../support/culvert-process.ts';
import { freePorts } from '../support/free-ports.ts';
import { type MeshNetwork, meshNetwork, startAgent } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho } from '../support/pod-sockets.ts';
import type { Pod } from '../support/pods.ts';

const TOKEN = 'token-of-the-agent';

/** `culvert control` with a folder of objects, a root that it makes, and a file of tokens. */
async function controlPlane(network: MeshNetwork) {
  const objects = join(network.folder, 'objects');
  const caDir = join(network.folder, 'root');
  const tokens = join(network.folder, 'tokens.yaml');
  mkdirSync(objects);
  const sha256 = createHash('sha256').update(TOKEN).digest('hex');
  const holder = { sha256, namespace: 'culvert-system', serviceAccount: 'culvert-agent', node: 'node-a' };
  writeFileSync(tokens, JSON.stringify({ tokens: [holder] }));
  const [port, admin, readiness, metrics] = (await freePorts(4)) as [number, number, number, number];
  const get = (at: number, path: string) =>
    fetch(`http://127.0.0.1:${at}${path}`).then(
      async (answer) => ({ status: answer.status, body: await answer.text() }),
      () => ({ status: 0, body: '' }),
    );

  async function start() {
    const process = runCulvert(['control'], {
      CULVERT_CONTROL_OBJECTS_DIR: objects,
      CULVERT_CONTROL_TOKENS_FILE: tokens,
      ROOT_CA_DIR: caDir,
      CULVERT_SECURE_GRPC_PORT: String(port),
      CULVERT_ADMIN_PORT: String(admin),
      CULVERT_READINESS_PORT: String(readiness),
      MONITORING_PORT: String(metrics),
      TERMINATION_GRACE_PERIOD_SECONDS: '4',
    });
    network.defer(() => process.child.kill('SIGKILL'));
    network.logs.set('control plane', process.output);
    await eventually('ready', async () => {
      if (process.child.exitCode !== null) throw new Error(process.output());
      return (await get(readiness, '/healthz/ready')).status === 200;
    });
    return process;
  }

  return {
    start,
    caDir,
    port,
    /** Objects of a file; null removes it. */
    write(name: string, ...given: readonly (object | string)[]) {
      const file = join(objects, `${name}.yaml`);
      const documents = given.map((object) => (typeof object === 'string' ? object : JSON.stringify(object)));
      writeFileSync(`${file}.new`, documents.join('\n---\n'));
      renameSync(`${file}.new`, file);
    },
    remove: (name: string) => rmSync(join(objects, `${name}.yaml`)),
    metrics: async () => (await get(metrics, '/metrics')).body,
    async status(...args: string[]) {
      const command = runCulvert(['status', '--admin', String(admin), ...args], {});
      network.defer(() => command.child.kill('SIGKILL'));
      return { code: await command.exited, text: command.output() };
    },
  };
}

function podObject({ name, ipv4 }: Pod) {
  return {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: {
      ...{ name, namespace: 'demo', uid: `uid-${name}`, labels: { app: name } },
      annotations: { 'ambient.istio.io/redirection': 'enabled' },
    },
    spec: { nodeName: 'node-a', serviceAccountName: name, containers: [] },
    status: { phase: 'Running', podIP: ipv4, conditions: [{ type: 'Ready', status: 'True' }] },
  };
}

const serviceObject = (name: string, clusterIP: string, port: number, targetPort: number) => ({
  ...{ apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'demo' } },
  spec: { selector: { app: name }, clusterIP, clusterIPs: [clusterIP], ports: [{ port, targetPort, protocol: 'TCP' }] },
});
const policyObject = (spec: object) => ({
  ...{
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'guard', namespace: 'demo' },
  },
  spec,
});

test('a control plane of files serves an agent: mesh state, certificates, policies', async (t) => {
  const network = await meshNetwork(t);
  const [client, server, late] = [
    await network.addPod('client'),
    await network.addPod('server'),
    await network.addPod('late'),
  ];
  const control = await controlPlane(network);
  control.write('namespace', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'demo' } });
  control.write('pods', podObject(client), podObject(server), serviceObject('server', '10.96.0.10', 80, 8080));
  let running = await control.start();
  const agent = await startAgent({
    network,
    mesh: {},
    env: {
      XDS_ADDRESS: `localhost:${control.port}`,
      CA_ADDRESS: `localhost:${control.port}`,
      XDS_ROOT_CA: join(control.caDir, 'root-cert.pem'),
      CA_ROOT_CA: join(control.caDir, 'root-cert.pem'),
      ALT_XDS_HOSTNAME: 'culvert-control.culvert-system.svc',
      ALT_CA_HOSTNAME: 'culvert-control.culvert-system.svc',
      CULVERT_CA_DIR: '',
      LOCAL_XDS_PATH: '',
      AUTH_TOKEN: TOKEN,
      POD_NAME: 'agent-x',
      POD_NAMESPACE: 'culvert-system',
      SERVICE_ACCOUNT: 'culvert-agent',
    },
  });

  await t.test('pods talk over mTLS, each with the identity of its service account', async () => {
    for (const pod of [client, server]) await agent.enrol(pod);
    await listenEcho(server, 8080);
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), 'hello'), 'hello');
    const line = await agent.access(({ field }) => field('direction') === 'inbound');
    assert.equal(line.field('src.identity'), 'spiffe://cluster.local/ns/demo/sa/client');
    assert.equal(line.field('dst.identity'), 'spiffe://cluster.local/ns/demo/sa/server');
    assert.equal(line.field('dst.service'), 'server.demo.svc.cluster.local');
  });

  await t.test('a policy cuts who is denied, and one that cannot be read changes nothing', async () => {
    const connection = dial(client, server.ipv4, 8080);
    connection.send('x');
    await connection.read(1);
    control.write('policy', policyObject({ action: 'DENY', rules: [{ from: [{ source: { principals: ['*'] } }] }] }));
    assert.equal(await fate(connection), 'ECONNRESET');
    control.write('policy', policyObject({ action: 'DENY', rules: [{ form: [] }] }));
    await eventually('rejected', async () => (await control.status()).text.includes('AuthorizationPolicy demo/guard'));
    assert.notEqual(await exchange(dial(client, server.ipv4, 8080), 'x').catch(() => 'denied'), 'x');
    control.write('policy', 'kind: [');
    await eventually('named', async () => /policy\.yaml:1:\d+/.test((await control.status()).text));
    assert.notEqual(await exchange(dial(client, server.ipv4, 8080), 'x').catch(() => 'denied'), 'x');
    control.remove('policy');
    await eventually('let in', async () => (await exchange(dial(client, server.ipv4, 8080), 'x')) === 'x');
  });

  await t.test('its status shows the agent, what it has, and the root', async () => {
    // What the agent acknowledged last may still be on its way.
    await eventually('up to date', async () => /Address: has .*, up to date/.test((await control.status()).text));
    const { code, text } = await control.status();
    assert.equal(code, 0, text);
    assert.match(text, /ready/);
    assert.match(text, /agents +1 connected/);
    assert.match(text, /node-a/);
    assert.match(text, /root +signs: +O=cluster\.local, until /);
    const report = JSON.parse((await control.status('--json')).text);
    assert.equal(report.clients[0].node, 'node-a');
    assert.deepEqual(report.rejected, []);
    const metrics = await control.metrics();
    assert.match(metrics, /^citadel_server_success_cert_issuance_count_total [1-9]/m);
    assert.match(metrics, /^culvert_control_resources\{type="address"\} 3$/m);
    assert.match(metrics, /^culvert_control_ready 1$/m);
    assert.doesNotMatch(running.output(), new RegExp(TOKEN));
  });

  await t.test('its restart fails no request, and a pod that came meanwhile is served', async () => {
    let stop = false;
    const failures: string[] = [];
    const traffic = (async () => {
      while (!stop) {
        const said = await exchange(dial(client, '10.96.0.10', 80), 'ping').catch((error: Error) => error.message);
        if (said !== 'ping') failures.push(said);
      }
    })();
    running.child.kill('SIGTERM');
    assert.equal(await running.exited, 0, running.output());
    control.write('late', podObject(late));
    running = await control.start();
    await agent.enrol(late);
    await eventually('late is served', async () => (await exchange(dial(late, '10.96.0.10', 80), 'late')) === 'late');
    const line = await agent.access(
      ({ field }) => field('direction') === 'inbound' && field('src.workload') === 'late',
    );
    assert.equal(line.field('src.identity'), 'spiffe://cluster.local/ns/demo/sa/late');
    stop = true;
    await traffic;
    assert.deepEqual(failures, []);
  });
});

for (const [what, env, complaint] of [
  [
    'nowhere to read objects from',
    {},
    /neither CULVERT_CONTROL_OBJECTS_DIR nor KUBERNETES_SERVICE_HOST is set; accepted: one of them/,
  ],
  [
    'a folder that is not there',
    { CULVERT_CONTROL_OBJECTS_DIR: '/nowhere', MONITORING_PORT: '0', CULVERT_READINESS_PORT: '0' },
    /the folder \/nowhere cannot be read/,
  ],
  [
    'a lifetime beyond the longest',
    { CULVERT_CONTROL_OBJECTS_DIR: '/tmp', DEFAULT_WORKLOAD_CERT_TTL: '100d' },
    /DEFAULT_WORKLOAD_CERT_TTL.*no more than MAX_WORKLOAD_CERT_TTL/,
  ],
] as const) {
  test(`${what} is said at the start`, async (t) => {
    const { child, exited, output } = runCulvert(['control'], env);
    t.after(() => child.kill('SIGKILL'));
    assert.equal(await exited, 1, output());
    assert.match(output(), complaint);
  });
}

test('without a control plane its status is an error that says where to ask', async (t) => {
  const [port] = await freePorts(1);
  const { child, exited, output } = runCulvert(['status', '--admin', String(port)], {});
  t.after(() => child.kill('SIGKILL'));
  assert.equal(await exited, 1);
  assert.match(output(), /the control plane does not answer on 127\.0\.0\.1:\d+ .*run this in its pod/);
});

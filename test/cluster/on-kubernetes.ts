/**
 * The whole of the node side on a real Kubernetes of two nodes: from `kubectl apply` to the uninstall. One story, because
 * a cluster is dear; each part says what it shows. Run by `npm run test:cluster`.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { stringify } from 'yaml';
import { eventually } from '../cni/support/eventually.ts';
import { type KubeObject, manifestForLocalState, NODES, type Node, replace } from './cluster.ts';
import {
  AMBIENT,
  agentLog,
  createNamespace,
  fetches,
  fetchFrom,
  loop,
  pod,
  podRunning,
  podsOf,
  probesAnswered,
  rolledOut,
  runPod,
  STATUS,
  status,
  WAIT,
} from './demo-pods.ts';
import { cluster, folder, skip } from './running-cluster.ts';
import { goesPlain, goesThroughTunnel } from './wire.ts';

let conflists: Map<Node, string>;
let denyServer = false;

test('one apply brings the node agent and the plugin to every node', { skip }, async () => {
  conflists = new Map(NODES.map((node) => [node, readFileSync(conflist(node), 'utf8')]));
  await createNamespace('demo');
  await runPod('early', 'node2', { serves: true });
  await podRunning('early');
  writeMesh([]);
  await cluster.apply(manifestForLocalState(join(folder, 'mesh'), join(folder, 'ca')));
  for (const name of ['culvert-cni', 'culvert-agent']) await rolledOut(name);
  for (const node of NODES) {
    const { plugins } = JSON.parse(readFileSync(conflist(node), 'utf8')) as { plugins: { type: string }[] };
    assert.deepEqual(
      plugins.map(({ type }) => type),
      ['bridge', 'portmap', 'culvert-cni'],
    );
    assert.ok(existsSync(join(cluster.folder(node), 'cni-bin/culvert-cni')));
  }
  assert.equal(await status('early'), undefined);
});

test('a label enrols running pods by the watch and new pods by the plugin', { skip }, async () => {
  await cluster.kubectl('label', 'namespace', 'demo', AMBIENT);
  await eventually('early is enrolled', async () => (await status('early')) === 'enabled', WAIT);
  await runPod('client', 'node1', {});
  await runPod('server', 'node2', { serves: true, probes: true });
  await runPod('out', 'node1', { labels: { 'istio.io/dataplane-mode': 'none' } });
  for (const name of ['client', 'server', 'out']) await podRunning(name);
  for (const name of ['client', 'server']) {
    await eventually(`${name} is enrolled`, async () => (await status(name)) === 'enabled', WAIT);
  }
  assert.equal(await status('out'), undefined);
  await logSays('node1', /pod captured.*demo\/client/);
});

test('traffic between nodes goes through mTLS, as seen on the wire', { skip }, async () => {
  await writeMeshOfPods();
  for (const name of ['server', 'early']) await goesThroughTunnel('client', name);
  // The pod that opted out is not in the mesh, and its traffic can be read.
  await goesPlain('out', 'server');
});

test('probes reach a pod that nobody else may reach', { skip }, async () => {
  denyServer = true;
  await writeMeshOfPods();
  await eventually('client is denied', async () => !(await fetches('client', 'server')), WAIT);
  await eventually('out is denied', async () => !(await fetches('out', 'server')), WAIT);
  const restarts = () =>
    cluster.kubectl(
      'get',
      'pod',
      '-n',
      'demo',
      'server',
      '-o',
      'jsonpath={.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].ready}',
    );
  // More than the two that may have been on their way.
  const before = await probesAnswered('server');
  await eventually('probes are answered', async () => (await probesAnswered('server')) >= before + 4, WAIT);
  assert.equal(await restarts(), '0/true');
  denyServer = false;
  await writeMeshOfPods();
  await eventually('client is let in again', () => fetches('client', 'server'), WAIT);
});

test('another node agent takes over, and pods keep their traffic meanwhile', { skip }, async () => {
  const old = await podsOf('culvert-cni');
  const traffic = await loop('client', 'server');
  await cluster.kubectl(
    'delete',
    'pod',
    '-n',
    'culvert-system',
    '-l',
    'app.kubernetes.io/name=culvert-cni',
    '--wait=false',
  );
  await eventually(
    'new node agents',
    async () => {
      const now = await podsOf('culvert-cni');
      const isNew = ({ metadata }: KubeObject) => !old.some((pod) => pod.metadata.uid === metadata.uid);
      return now.length === NODES.length && now.every(isNew);
    },
    WAIT,
  );
  // The DaemonSet may still be told of the old ones.
  for (const { metadata } of await podsOf('culvert-cni')) await podRunning(metadata.name, 'culvert-system');
  await traffic.stop();
  assert.equal(await status('server'), 'enabled');
  await logSays('node2', /enrolled pods found.*pods=2.*without_namespace=0/);
});

test('a new agent takes over from the old one under load', { skip }, async (t) => {
  const traffic = await loop('client', 'server');
  await cluster.kubectl('rollout', 'restart', '-n', 'culvert-system', 'daemonset/culvert-agent');
  await rolledOut('culvert-agent');
  const done = await traffic.stop();
  t.diagnostic(`${done} requests`);
  assert.ok(done > 50, `only ${done} requests`);
});

test('without a node agent pods of enrolled namespaces wait, and others start', { skip }, async () => {
  await stopNodeAgents();
  await runPod('waits', 'node1', {});
  await runPod('starts', 'node1', { namespace: 'default' });
  await podRunning('starts', 'default');
  await eventually(
    'the reason is told',
    async () => {
      const events = await cluster.kubectl(
        'get',
        'events',
        '-n',
        'demo',
        '--field-selector',
        'involvedObject.name=waits',
      );
      return events.includes('namespace demo is in the mesh');
    },
    WAIT,
  );
  assert.equal((await pod('waits')).status.phase, 'Pending');
  await startNodeAgents();
  await podRunning('waits');
  await eventually('waits is enrolled', async () => (await status('waits')) === 'enabled', WAIT);
  await cluster.kubectl('delete', 'pod', '-n', 'default', 'starts', '--grace-period=0', '--force');
});

test('pods that come and go leave nothing behind', { skip }, async (t) => {
  const figures = async () => {
    const metrics = await cluster.onNode('node1', 'curl', '-s', 'http://127.0.0.1:15014/metrics');
    const read = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1] ?? 0);
    return {
      descriptors: read('process_open_fds'),
      pods: [...metrics.matchAll(/^culvert_cni_pods\{.*\} (\d+)$/gm)].reduce(
        (sum, [, count]) => sum + Number(count),
        0,
      ),
      memory: read('process_resident_memory_bytes'),
    };
  };
  const before = await figures();
  const count = Number(process.env.CULVERT_CHURN ?? 20);
  for (let made = 0; made < count; made += 5) {
    const names = Array.from({ length: 5 }, (_, index) => `churn-${made + index}`);
    await Promise.all(names.map((name) => runPod(name, 'node1', {})));
    for (const name of names) await podRunning(name);
    await cluster.kubectl('delete', 'pod', '-n', 'demo', ...names, '--grace-period=0', '--force');
  }
  await eventually(
    'nothing is left',
    async () => {
      const now = await figures();
      const told = JSON.stringify({ before, now });
      assert.ok(now.pods === before.pods && now.descriptors <= before.descriptors + 3, told);
      return true;
    },
    WAIT,
  );
  const { memory } = await figures();
  t.diagnostic(`the node agent has ${Math.round(memory / 1e6)} MB`);
  assert.ok(memory < 130e6, `the node agent has grown to ${memory} bytes`);
});

test('the node agent outlives its API server', { skip }, async () => {
  const pid = readFileSync(join(cluster.folder('node1'), '../kube-apiserver.pid'), 'utf8').trim();
  process.kill(Number(pid), 'SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 3000));
  process.kill(Number(pid), 'SIGCONT');
  await runPod('later', 'node2', {});
  await podRunning('later');
  await eventually('later is enrolled', async () => (await status('later')) === 'enabled', WAIT);
});

test('without the label pods leave the mesh and keep their traffic', { skip }, async () => {
  await cluster.kubectl('label', 'namespace', 'demo', 'istio.io/dataplane-mode-');
  for (const name of ['client', 'server', 'early']) {
    await eventually(`${name} has left`, async () => (await status(name)) === undefined, WAIT);
  }
  await eventually('plain traffic', () => fetches('client', 'server'), WAIT);
  await cluster.kubectl('label', 'namespace', 'demo', AMBIENT);
  await eventually('server is back', async () => (await status('server')) === 'enabled', WAIT);
  await eventually('traffic', () => fetches('client', 'server'), WAIT);
});

test('an uninstall leaves the nodes as they were', { skip }, async () => {
  await cluster.kubectl('delete', 'daemonset', '-n', 'culvert-system', 'culvert-cni', '--timeout=120s');
  // They have a minute to end, once the garbage collector has told them to.
  await eventually('node agents are gone', async () => (await podsOf('culvert-cni')).length === 0, 3 * WAIT);
  for (const node of NODES) {
    assert.equal(readFileSync(conflist(node), 'utf8'), conflists.get(node));
    for (const left of ['cni-bin/culvert-cni', 'run/culvert/cni.sock', 'run/ztunnel/ztunnel.sock']) {
      assert.ok(!existsSync(join(cluster.folder(node), left)), `${node} still has ${left}`);
    }
    assert.doesNotMatch(await cluster.onNode(node, 'nft', 'list', 'tables'), /istio-ambient/);
  }
  assert.equal(await status('server'), undefined);
  await cluster.kubectl('delete', 'namespace', 'culvert-system', '--timeout=120s');
  assert.match(await fetchFrom('client', 'server'), /I am server/);
  await cluster.kubectl('delete', 'namespace', 'demo', '--timeout=120s');
});

/** Waits for a line of the node agent; the error shows what it said instead. */
async function logSays(node: Node, line: RegExp): Promise<void> {
  await eventually(
    `${node} says ${line}`,
    async () => {
      assert.match(await agentLog('culvert-cni', node), line);
      return true;
    },
    WAIT,
  );
}

function conflist(node: Node): string {
  return join(cluster.folder(node), 'cni-conf/10-bridge.conflist');
}

/** The DaemonSet goes on wanting the nodes, so the node agents know that they are only away; but no new one can start. */
async function stopNodeAgents(): Promise<void> {
  const updateStrategy = { rollingUpdate: { maxUnavailable: '100%' } };
  await patchNodeAgents({ updateStrategy, ...ofImage('culvert:absent') });
  await eventually(
    'no node agent answers',
    () => NODES.every((node) => !existsSync(join(cluster.folder(node), 'run/culvert/cni.sock'))),
    WAIT,
  );
}

async function startNodeAgents(): Promise<void> {
  await patchNodeAgents(ofImage('culvert:0.1.0'));
  await rolledOut('culvert-cni');
}

function ofImage(image: string) {
  return { template: { spec: { containers: [{ name: 'culvert-cni', image }] } } };
}

async function patchNodeAgents(spec: object): Promise<void> {
  await cluster.kubectl('patch', 'daemonset', '-n', 'culvert-system', 'culvert-cni', '-p', JSON.stringify({ spec }));
}

/** Tells the agents about the pods of the demo, as a control plane would. */
async function writeMeshOfPods(): Promise<void> {
  writeMesh((await cluster.json('get', 'pods', '-n', 'demo')).items.filter(({ status }) => status.podIP !== undefined));
}

function writeMesh(pods: readonly KubeObject[]): void {
  const workloads = pods.map(({ metadata, spec, status }) => ({
    uid: `Kubernetes//Pod/${metadata.namespace}/${metadata.name}`,
    name: metadata.name,
    namespace: metadata.namespace,
    serviceAccount: spec.serviceAccountName,
    trustDomain: 'cluster.local',
    workloadIps: [status.podIP],
    protocol: metadata.annotations?.[STATUS] === 'enabled' ? 'HBONE' : 'TCP',
    node: spec.nodeName,
    clusterId: 'Kubernetes',
    authorizationPolicies: denyServer && metadata.name === 'server' ? ['demo/deny'] : [],
    services: {},
  }));
  const deny = {
    ...{ name: 'deny', namespace: 'demo', scope: 'WorkloadSelector', action: 'Deny', dryRun: false },
    rules: [[[{ destinationPorts: [8080] }]]],
  };
  replace(join(folder, 'mesh/mesh.yaml'), stringify({ workloads, services: [], policies: denyServer ? [deny] : [] }));
}

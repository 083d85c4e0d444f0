import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runCommand } from '../../src/netns/run.ts';
import type { Pod } from '../support/pods.ts';
import { noApiServer } from './support/api-server.ts';
import { eventually } from './support/eventually.ts';
import { CONFLIST, fileText, hostRules, isCaptured, type TestNode, testNode } from './support/node.ts';
import { connectTestAgent } from './support/zds-agent.ts';

const AMBIENT = { 'istio.io/dataplane-mode': 'ambient' };
const plugin = fileURLToPath(new URL('../../native/cni-plugin/build/culvert-cni', import.meta.url));

/** What a runtime does for a sandbox: calls the plugin with the configuration that is installed. */
async function callPlugin(node: TestNode, command: string, namespace: string, name: string, uid: string, pod: Pod) {
  const { plugins, cniVersion, name: network } = JSON.parse(fileText(join(node.folders.conf, '10-net.conflist')));
  const entry = (plugins as { type: string }[]).at(-1);
  const ips = [pod.ipv4, ...(pod.ipv6 === null ? [] : [pod.ipv6])].map((ip) => ({ address: `${ip}/64` }));
  const config = JSON.stringify({ ...entry, cniVersion, name: network, prevResult: { cniVersion, ips } });
  return await new Promise<{ status: number | null; stdout: string }>((resolve) => {
    const child = spawn(plugin, {
      env: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: `sandbox-of-${pod.name}`,
        CNI_NETNS: pod.netnsPath,
        CNI_IFNAME: 'eth0',
        CNI_PATH: node.folders.bin,
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
      },
    });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.on('close', (status) => resolve({ status, stdout }));
    child.stdin.end(config);
  });
}

test('a pod is in the mesh before it starts, or does not start', { skip: noApiServer }, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('demo', AMBIENT);
  await node.addNamespace('plain');
  const agent = await node.startNodeAgent();
  await eventually('ready', async () => (await agent.readyz()) === 200);
  const uid = await node.addPodObject('demo', 'web');
  const pod = await node.network.addPod('web');

  const refused = await callPlugin(node, 'ADD', 'demo', 'web', uid, pod);
  assert.equal(refused.status, 1);
  assert.match(JSON.parse(refused.stdout).msg, /demo\/web cannot be enrolled: no agent is connected/);

  const proxy = connectTestAgent(node.zdsPath);
  await eventually('snapshot', () => proxy.isInformed());
  const admitted = await callPlugin(node, 'ADD', 'demo', 'web', uid, pod);
  assert.equal(admitted.status, 0, admitted.stdout);
  assert.equal(JSON.parse(admitted.stdout).ips[0].address, `${pod.ipv4}/64`);
  // All of this is done by the time that the plugin has answered.
  assert.ok(await isCaptured(pod));
  assert.equal(proxy.pods.get(uid), statSync(pod.netnsPath).ino);
  assert.match(await hostRules(node), new RegExp(`${pod.ipv4} comment "${uid}"`));
  await eventually('annotated', async () => (await node.annotation('demo', 'web')) === 'enabled');
  assert.equal((await callPlugin(node, 'CHECK', 'demo', 'web', uid, pod)).status, 0);

  // The runtime makes the sandbox anew: the same pod in another namespace.
  const next = await node.network.addPod('web2');
  assert.equal((await callPlugin(node, 'ADD', 'demo', 'web', uid, next)).status, 0);
  assert.equal(proxy.pods.get(uid), statSync(next.netnsPath).ino);
  assert.equal((await callPlugin(node, 'DEL', 'demo', 'web', uid, pod)).status, 0);
  assert.equal(proxy.pods.get(uid), statSync(next.netnsPath).ino, 'the end of the old sandbox is not that of the new');
  assert.equal((await callPlugin(node, 'DEL', 'demo', 'web', uid, next)).status, 0);
  await eventually('the namespace is let go', () => !proxy.pods.has(uid));

  // A static pod: the runtime tells the uid of the kubelet, the API server another.
  const hash = '0123456789abcdef0123456789abcdef';
  await node.addPodObject('demo', 'static', { metadata: { annotations: { 'kubernetes.io/config.hash': hash } } });
  const fixed = await node.network.addPod('static');
  assert.equal((await callPlugin(node, 'ADD', 'demo', 'static', hash, fixed)).status, 0);
  assert.equal((await callPlugin(node, 'CHECK', 'demo', 'static', hash, fixed)).status, 0);
  const absent = await callPlugin(node, 'CHECK', 'demo', 'web', uid, next);
  assert.equal(JSON.parse(absent.stdout).code, 100, absent.stdout);
  assert.equal((await callPlugin(node, 'DEL', 'demo', 'static', hash, fixed)).status, 0);
  await node.api.call('DELETE', '/api/v1/namespaces/demo/pods/static?gracePeriodSeconds=0');

  // Pods that are none of its business start at once.
  const other = await node.addPodObject('plain', 'other');
  assert.equal((await callPlugin(node, 'ADD', 'plain', 'other', other, pod)).status, 0);
  assert.ok(!proxy.pods.has(other));
  await node.api.call('DELETE', '/api/v1/namespaces/demo/pods/web?gracePeriodSeconds=0');
  await eventually('forgotten', async () => !(await agent.metrics()).includes('culvert_cni_pods{'));
  assert.match(await agent.metrics(), /istio_cni_plugin_requests_total\{response_code="500"\} 2/);
});

test('another node agent finds enrolled pods, and serves no snapshot before', { skip: noApiServer }, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('demo', AMBIENT);
  const uids = [await node.addPodObject('demo', 'web'), await node.addPodObject('demo', 'gone')];
  const web = await node.runPod('demo', 'web', uids[0]!);
  const gone = await node.runPod('demo', 'gone', uids[1]!);
  const first = await node.startNodeAgent();
  const proxy = connectTestAgentWhenThere(node);
  await eventually('both enrolled', async () => {
    const states = await Promise.all(['web', 'gone'].map((name) => node.annotation('demo', name)));
    return states.every((state) => state === 'enabled');
  });
  // Without its DaemonSet it would take pods out; killed, it cannot.
  assert.equal(await first.stop('SIGKILL'), null);
  await eventually('the agent notices', () => proxy().isClosed());
  assert.ok(await isCaptured(web));
  // Something has changed the rules of one pod, and the processes of the other have ended.
  await runCommand(['nft', 'flush', 'chain', 'inet', 'istio-ambient-nat', 'istio-output'], { netns: web.netns.fd });
  for (const pid of readdirSync(node.folders.proc)) {
    if (pid !== '1' && fileText(join(node.folders.proc, pid, 'cgroup')).includes(uids[1]!.replaceAll('-', '_'))) {
      rmSync(join(node.folders.proc, pid), { recursive: true });
    }
  }

  const second = await node.startNodeAgent();
  await eventually('ready', async () => (await second.readyz()) === 200);
  const again = connectTestAgent(node.zdsPath);
  await eventually('snapshot', () => again.isInformed());
  const kinds = new Map(
    again.told.map(({ request }) => [request.kind === 'snapshot-sent' ? '' : request.uid, request.kind]),
  );
  assert.deepEqual([kinds.get(uids[0]!), kinds.get(uids[1]!)], ['add', 'keep']);
  assert.equal(again.told.at(-1)!.request.kind, 'snapshot-sent');
  await eventually('rules repaired', async () => {
    const { stdout } = await runCommand(['nft', 'list', 'chain', 'inet', 'istio-ambient-nat', 'istio-output'], {
      netns: web.netns.fd,
    });
    return stdout.includes('15001');
  });
  assert.ok(await isCaptured(gone));
});

test('its end is an uninstall when its DaemonSet is gone, and nothing when it is not', {
  skip: noApiServer,
}, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('demo', AMBIENT);
  await node.addNamespace('culvert-system');
  const uid = await node.addPodObject('demo', 'web');
  const web = await node.runPod('demo', 'web', uid);
  const labels = { app: 'x' };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'i' }] } };
  await node.api.create('/apis/apps/v1/namespaces/culvert-system/daemonsets', {
    metadata: { name: 'culvert-cni' },
    spec: { selector: { matchLabels: labels }, template },
  });
  const first = await node.startNodeAgent();
  const proxy = connectTestAgentWhenThere(node);
  await eventually('enrolled', async () => (await node.annotation('demo', 'web')) === 'enabled');
  assert.equal(await first.stop(), 0);
  assert.match(first.log(), /kind="replaced"/);
  assert.ok(await isCaptured(web));
  assert.match(fileText(join(node.folders.conf, '10-net.conflist')), /culvert-cni/);
  assert.match(fileText(join(node.folders.state, 'cni-state')), /^namespace demo$/m);
  await eventually('the agent notices', () => proxy().isClosed());

  const second = await node.startNodeAgent();
  await eventually('ready', async () => (await second.readyz()) === 200);
  const again = connectTestAgent(node.zdsPath);
  await eventually('snapshot', () => again.isInformed());
  await node.api.call('DELETE', '/apis/apps/v1/namespaces/culvert-system/daemonsets/culvert-cni');
  assert.equal(await second.stop(), 0);
  assert.match(second.log(), /kind="uninstalled"/);
  assert.equal(fileText(join(node.folders.conf, '10-net.conflist')), CONFLIST);
  assert.deepEqual(
    [...readdirSync(node.folders.bin), ...readdirSync(node.folders.state), ...readdirSync(node.folders.run)],
    [],
  );
  assert.ok(!(await isCaptured(web)));
  assert.equal(await hostRules(node), '');
  assert.equal(await node.annotation('demo', 'web'), null);
  assert.equal(again.pods.size, 0);
});

test('one that never got to start removes the plugin of an earlier one when its DaemonSet is gone', {
  skip: noApiServer,
}, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('culvert-system');
  const first = await node.startNodeAgent();
  await eventually('ready', async () => (await first.readyz()) === 200);
  await first.stop('SIGKILL');
  assert.match(fileText(join(node.folders.conf, '10-net.conflist')), /culvert-cni/);
  // It waits for as long as this is there.
  const incumbent = join(node.folders.conf, '20-istio.conf');
  writeFileSync(incumbent, '{"cniVersion":"1.0.0","name":"istio","type":"istio-cni"}');
  const second = await node.startNodeAgent();
  await eventually('waiting', () => second.log().includes('uninstall it first'));
  assert.equal(await second.stop(), 0);
  assert.match(second.log(), /kind="uninstalled"/);
  assert.equal(fileText(join(node.folders.conf, '10-net.conflist')), CONFLIST);
  assert.deepEqual([...readdirSync(node.folders.bin), ...readdirSync(node.folders.state)], []);
});

test('an API server that comes back is believed, and what was missed is made up for', {
  skip: noApiServer,
}, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('demo');
  const uid = await node.addPodObject('demo', 'web');
  await node.runPod('demo', 'web', uid);
  const agent = await node.startNodeAgent();
  await eventually('ready', async () => (await agent.readyz()) === 200);
  const proxy = connectTestAgent(node.zdsPath);
  await eventually('snapshot', () => proxy.isInformed());
  await node.api.restart();
  await node.label('demo', AMBIENT);
  await eventually(
    'enrolled after the restart',
    async () => (await node.annotation('demo', 'web')) === 'enabled',
    90_000,
  );
  assert.ok(proxy.pods.has(uid));
  assert.ok(!proxy.isClosed(), 'agents do not notice');
  assert.match(await agent.metrics(), /culvert_cni_watch_failures_total\{resource="pods"\} [1-9]/);
});

test('a pod that no agent can serve is marked pending, and enrolled when one can', { skip: noApiServer }, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('demo', AMBIENT);
  const uid = await node.addPodObject('demo', 'web');
  const web = await node.runPod('demo', 'web', uid);
  const agent = await node.startNodeAgent();
  await eventually('ready', async () => (await agent.readyz()) === 200);
  let refuse = true;
  const proxy = connectTestAgent(node.zdsPath, ({ kind }) => (refuse && kind === 'add' ? 'no room' : ''));
  await eventually('pending', async () => (await node.annotation('demo', 'web')) === 'pending');
  // A running pod keeps its traffic until there is somebody to take it.
  assert.ok(!(await isCaptured(web)));
  await eventually('it says why', () => agent.log().includes('no room'));
  refuse = false;
  await eventually('enabled', async () => (await node.annotation('demo', 'web')) === 'enabled');
  assert.ok(await isCaptured(web));
  assert.ok(proxy.pods.has(uid));
});

/** Connects as soon as the node agent listens. */
function connectTestAgentWhenThere(node: TestNode) {
  let proxy: ReturnType<typeof connectTestAgent> | null = null;
  const timer = setInterval(() => {
    try {
      proxy = connectTestAgent(node.zdsPath);
      clearInterval(timer);
    } catch {
      // Not yet.
    }
  }, 50);
  timer.unref();
  return () => proxy!;
}

/**
 * Each half of culvert beside the other half of istio, on a real Kubernetes of two nodes: agent and node agent with
 * istiod, then the agent with istio's node agent and plugin. Not part of `npm run test:cluster`: istio is not here.
 *
 *     CULVERT_ISTIO_DIR=DIR unshare --pid --fork --mount-proc node --test test/cluster/with-istio.ts
 *
 * In a PID namespace of its own, as istio's node agent looks into the first process, which a container may not show.
 * DIR holds what was built from the module istio.io/istio without cgo: `pilot-discovery`, `install-cni` and
 * `plugin/istio-cni`; and `crds.yaml`, a copy of manifests/charts/base/files/crd-all.gen.yaml.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { eventually } from '../cni/support/eventually.ts';
import { manifestForIstiod, NODES } from './cluster.ts';
import {
  AMBIENT,
  agentLog,
  createNamespace,
  fetches,
  podRunning,
  rolledOut,
  runPod,
  status,
  WAIT,
} from './demo-pods.ts';
import { cluster, folder, skip as noCluster } from './running-cluster.ts';
import { goesThroughTunnel } from './wire.ts';

const istio = resolve(process.env.CULVERT_ISTIO_DIR ?? '');
const missing = ['pilot-discovery', 'install-cni', 'plugin/istio-cni', 'crds.yaml'].filter(
  (file) => !existsSync(join(istio, file)),
);
const skip = noCluster || (missing.length > 0 ? `CULVERT_ISTIO_DIR lacks ${missing.join(', ')}` : false);
/** Where nodes and pods reach this machine. */
const HOST = '10.89.0.1';

let istiod: ChildProcess | null = null;
after(() => istiod?.kill('SIGKILL'));

test('both agents work with istiod: its certificates, its workloads, its policies', { skip }, async () => {
  await cluster.kubectl('apply', '--server-side', '-f', join(istio, 'crds.yaml'));
  for (const name of ['istio-system', 'demo']) await createNamespace(name);
  istiod = startIstiod();
  await cluster.apply(manifestForIstiod(HOST));
  for (const name of ['culvert-cni', 'culvert-agent']) await rolledOut(name);
  await cluster.kubectl('label', 'namespace', 'demo', AMBIENT);
  await runPod('client', 'node1', {});
  await runPod('server', 'node2', { serves: true, labels: { app: 'server' } });
  await bothEnrolled();
  await goesThroughTunnel('client', 'server');

  await cluster.apply(denyAll());
  await eventually('istiod’s policy denies', async () => !(await fetches('client', 'server')), WAIT);
  await cluster.kubectl('delete', 'authorizationpolicy', '-n', 'demo', 'deny');
  await eventually('and is taken back', () => fetches('client', 'server'), WAIT);
});

test("the agent works with istio's node agent", { skip: skip || closedProc() }, async () => {
  await cluster.kubectl('label', 'namespace', 'demo', 'istio.io/dataplane-mode-');
  for (const name of ['client', 'server']) {
    await eventually(`${name} has left`, async () => (await status(name)) === undefined, WAIT);
  }
  await cluster.kubectl('delete', 'daemonset', '-n', 'culvert-system', 'culvert-cni', '--timeout=120s');
  await cluster.apply(istioNodeAgent());
  await cluster.kubectl('rollout', 'status', '-n', 'istio-system', 'daemonset/istio-cni-node', '--timeout=240s');
  await cluster.kubectl('label', 'namespace', 'demo', AMBIENT);
  await bothEnrolled();
  await goesThroughTunnel('client', 'server');
  // A pod that starts comes through istio's plugin.
  await runPod('late', 'node1', {});
  await podRunning('late');
  await eventually('late is enrolled', async () => (await status('late')) === 'enabled', WAIT);
  await eventually('late reaches the server', () => fetches('late', 'server'), WAIT);
  for (const node of NODES) {
    const file = join(cluster.folder(node), 'cni-conf/10-bridge.conflist');
    const { plugins } = JSON.parse(readFileSync(file, 'utf8')) as { plugins: { type: string }[] };
    assert.deepEqual(
      plugins.map(({ type }) => type),
      ['bridge', 'portmap', 'istio-cni'],
    );
  }
  assert.doesNotMatch(await agentLog('culvert-agent', 'node1'), /level=error/);
});

/** Why istio's node agent cannot run here: it must look at the namespace of the first process, culvert's need not. */
function closedProc(): string | false {
  try {
    statSync('/proc/1/ns/net');
    return false;
  } catch {
    return 'the first process cannot be looked at, which istio-cni needs: run this under unshare --pid --fork --mount-proc';
  }
}

async function bothEnrolled(): Promise<void> {
  for (const name of ['client', 'server']) {
    await podRunning(name);
    await eventually(`${name} is enrolled`, async () => (await status(name)) === 'enabled', WAIT);
  }
}

/** As a process of this machine: its Service is a line in the agents' hosts file. */
function startIstiod(): ChildProcess {
  const cwd = join(folder, 'istiod');
  mkdirSync(cwd, { recursive: true });
  const log = openSync(join(cwd, 'istiod.log'), 'a');
  const none = [
    '--httpAddr=127.0.0.1:0',
    '--httpsAddr=',
    '--grpcAddr=',
    '--monitoringAddr=127.0.0.1:0',
    '--ctrlz_port=0',
  ];
  return spawn(join(istio, 'pilot-discovery'), ['discovery', '--secureGRPCAddr=:15012', ...none], {
    cwd,
    stdio: ['ignore', log, log],
    env: {
      ...process.env,
      KUBECONFIG: cluster.kubeconfig,
      POD_NAME: 'istiod-1',
      POD_NAMESPACE: 'istio-system',
      SERVICE_ACCOUNT: 'istiod',
      CLUSTER_ID: 'Kubernetes',
      PILOT_CERT_PROVIDER: 'istiod',
      PILOT_ENABLE_AMBIENT: 'true',
      CA_TRUSTED_NODE_ACCOUNTS: 'culvert-system/culvert-agent',
      INJECTION_WEBHOOK_CONFIG_NAME: '',
      VALIDATION_WEBHOOK_CONFIG_NAME: '',
    },
  });
}

function denyAll(): object {
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'deny', namespace: 'demo' },
    spec: { selector: { matchLabels: { app: 'server' } }, action: 'DENY', rules: [{}] },
  };
}

/** istio's node agent as its chart deploys it, in culvert's image, which has what it calls. */
function istioNodeAgent(): object {
  const metadata = { name: 'istio-cni', namespace: 'istio-system' };
  const app = { 'k8s-app': 'istio-cni-node' };
  const host = (name: string, path: string) => ({ name, hostPath: { path, type: 'DirectoryOrCreate' } });
  const paths = {
    'cni-bin': ['/opt/cni/bin', '/host/opt/cni/bin'],
    'cni-conf': ['/etc/cni/net.d', '/host/etc/cni/net.d'],
    run: ['/var/run/istio-cni', '/var/run/istio-cni'],
    zds: ['/var/run/ztunnel', '/var/run/ztunnel'],
    proc: ['/proc', '/host/proc'],
    istio: [istio, '/istio'],
    plugin: [join(istio, 'plugin'), '/opt/cni/bin'],
  };
  const selectors = [
    '- podSelector: { matchLabels: { istio.io/dataplane-mode: ambient } }',
    '- podSelector: { matchExpressions: [{ key: istio.io/dataplane-mode, operator: NotIn, values: [none] }] }',
    '  namespaceSelector: { matchLabels: { istio.io/dataplane-mode: ambient } }',
  ].join('\n');
  const env = {
    AMBIENT_ENABLED: 'true',
    AMBIENT_ENABLEMENT_SELECTOR: selectors,
    AMBIENT_DNS_CAPTURE: 'false',
    AMBIENT_IPV6: 'true',
    AMBIENT_RECONCILE_POD_RULES_ON_STARTUP: 'true',
    CHAINED_CNI_PLUGIN: 'true',
    EXCLUDE_NAMESPACES: 'kube-system',
    NATIVE_NFTABLES: 'true',
    REPAIR_ENABLED: 'false',
    ALLOW_SWITCH_TO_HOST_NS: 'false',
    POD_NAMESPACE: 'istio-system',
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  };
  const fieldEnv = { NODE_NAME: 'spec.nodeName', POD_NAME: 'metadata.name' };
  const netns = { name: 'netns', mountPath: '/host/var/run/netns', mountPropagation: 'HostToContainer' };
  const daemonSet = {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name: 'istio-cni-node', namespace: 'istio-system', labels: app },
    spec: {
      selector: { matchLabels: app },
      template: {
        metadata: { labels: { ...app, 'istio.io/dataplane-mode': 'none' } },
        spec: {
          serviceAccountName: 'istio-cni',
          hostNetwork: true,
          priorityClassName: 'system-node-critical',
          tolerations: [{ operator: 'Exists' }],
          containers: [
            {
              name: 'install-cni',
              image: 'culvert:0.1.0',
              command: ['/istio/install-cni'],
              args: ['--log_output_level=info'],
              env: [
                ...Object.entries(env).map(([name, value]) => ({ name, value })),
                ...Object.entries(fieldEnv).map(([name, fieldPath]) => ({
                  name,
                  valueFrom: { fieldRef: { fieldPath } },
                })),
              ],
              readinessProbe: { httpGet: { path: '/readyz', port: 8000 } },
              securityContext: { privileged: true, runAsUser: 0 },
              volumeMounts: [...Object.entries(paths).map(([name, [, mountPath]]) => ({ name, mountPath })), netns],
            },
          ],
          volumes: [
            ...Object.entries(paths).map(([name, [path]]) => host(name, path!)),
            host('netns', '/var/run/netns'),
          ],
        },
      },
    },
  };
  const account = { kind: 'ServiceAccount', name: 'istio-cni', namespace: 'istio-system' };
  const rbac = 'rbac.authorization.k8s.io';
  return {
    apiVersion: 'v1',
    kind: 'List',
    items: [
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
      {
        apiVersion: `${rbac}/v1`,
        kind: 'ClusterRoleBinding',
        metadata: { name: 'istio-cni' },
        roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'cluster-admin' },
        subjects: [account],
      },
      daemonSet,
    ],
  };
}

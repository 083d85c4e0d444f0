/** What is deployed, before it is: the API server accepts every object of every manifest, and of the chart as it can be set. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually } from '../cni/support/eventually.ts';
import { buildGoTool, noGoTool } from '../support/go-tools.ts';
import { cluster, folder, skip as noCluster } from './running-cluster.ts';

const skip = noCluster || noGoTool('helm');

const deploy = fileURLToPath(new URL('../../deploy', import.meta.url));
const CHART = join(deploy, 'chart/culvert');
const NAMESPACE = 'dry-run';
const MONITORING = ['podMonitor', 'prometheusRule', 'dashboard'].map((name) => `${name}.enabled=true`);
const SETTINGS = [
  [],
  MONITORING,
  ...['gke', 'k3s', 'k3d', 'microk8s', 'minikube', 'openshift'].map((platform) => [`platform=${platform}`]),
  ['cni.enabled=false', 'hub=registry.example/mesh'],
  ['cni.watchOnly=true', 'agent.network=west', 'agent.resourceQuotas.enabled=true'],
];

function helm(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(buildGoTool('helm'), args, { encoding: 'utf8' });
}

test('the chart passes lint and refuses what its schema does not know', { skip }, () => {
  const lint = helm('lint', '--strict', CHART);
  assert.equal(lint.status, 0, lint.stdout + lint.stderr);
  const refused = helm('template', 'culvert', CHART, '--kube-version', '1.33.0', '--set', 'cni.chainned=true');
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /chainned/);
});

test('the API server would take every manifest', { skip }, async () => {
  await cluster.kubectl('create', 'namespace', NAMESPACE);
  for (const [kind, plural] of [
    ['PodMonitor', 'podmonitors'],
    ['PrometheusRule', 'prometheusrules'],
  ] as const) {
    await cluster.apply(anyKind('monitoring.coreos.com', kind, plural));
  }
  const crds = ['podmonitors', 'prometheusrules'].map((plural) => `crd/${plural}.monitoring.coreos.com`);
  await cluster.kubectl('wait', '--for=condition=Established', '--timeout=60s', ...crds);
  // Established comes before the server tells of the kind.
  for (const kind of ['podmonitors', 'prometheusrules']) {
    await eventually(`${kind} are known`, () =>
      cluster.kubectl('get', kind, '-n', NAMESPACE, '-o', 'name').then(() => true),
    );
  }

  for (const [index, settings] of SETTINGS.entries()) {
    const set = settings.flatMap((setting) => ['--set', setting]);
    const { status, stdout, stderr } = helm(
      ...['template', 'culvert', CHART, '-n', NAMESPACE, '--kube-version', '1.33.0', ...set],
    );
    assert.equal(status, 0, `${settings.join(' ')}: ${stderr}`);
    const file = join(folder, `chart-${index}.yaml`);
    writeFileSync(file, stdout);
    await accepted(file, settings.join(' '));
  }
  // In their own namespace, which for once must be there.
  await cluster.kubectl('create', 'namespace', 'culvert-system');
  for (const manifest of ['daemonset.yaml', 'culvert.yaml']) await accepted(join(deploy, manifest), manifest);
  for (const namespace of [NAMESPACE, 'culvert-system']) await cluster.kubectl('delete', 'namespace', namespace);
  await cluster.kubectl('delete', ...crds);
});

async function accepted(file: string, what: string): Promise<void> {
  const said = await cluster.kubectl('apply', '--server-side', '--dry-run=server', '-f', file);
  assert.match(said, /serverside-applied \(server dry run\)/, what);
}

/** A kind of which the server takes any object. */
function anyKind(group: string, kind: string, plural: string): object {
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      names: { kind, plural, singular: kind.toLowerCase() },
      scope: 'Namespaced',
      versions: [{ name: 'v1', served: true, storage: true, schema }],
    },
  };
}

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { makeManifest } from '../../scripts/manifest.ts';
import { NODE_AGENT } from '../../src/cni/metrics.ts';
import type { Setting } from '../../src/config/setting.ts';
import { controlSettings } from '../../src/config/settings/control.ts';
import { nodeAgentSettings } from '../../src/config/settings/node-agent.ts';
import { settings } from '../../src/config/settings.ts';
import { CA } from '../../src/control/ca/metrics.ts';
import { CONTROL } from '../../src/control/metrics.ts';
import { MESH_KINDS } from '../../src/control/objects/kinds.ts';
import * as families from '../../src/metrics/families.ts';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const { version } = JSON.parse(read('package.json')) as { version: string };

interface Item {
  kind: string;
  metadata: { name: string };
  items?: Item[];
  rules?: unknown;
  spec: { template: { spec: { containers: [{ image: string; env: { name: string; value?: string }[] }] } } };
}

const workloads = ['DaemonSet', 'Deployment'];
const itemsOf = (path: string) =>
  parseAllDocuments(read(path), { merge: true })
    .map((document) => document.toJS() as Item)
    .flatMap((item) => item.items ?? item);
const deployed = ['deploy/daemonset.yaml', 'deploy/culvert.yaml'].flatMap((path) =>
  itemsOf(path).filter(({ kind }) => workloads.includes(kind)),
);

test('manifest and chart name the image that npm run image makes', () => {
  assert.equal(deployed.length, 5);
  for (const { spec } of deployed) assert.equal(spec.template.spec.containers[0].image, `culvert:${version}`);
  const chart = parse(read('deploy/chart/culvert/Chart.yaml'));
  assert.deepEqual([chart.version, chart.appVersion], [version, version]);
});

test('every variable of the manifest is a setting, with a value that is accepted', () => {
  const tables: Record<string, Record<string, Setting>> = {
    'culvert-cni': nodeAgentSettings,
    'culvert-agent': settings,
    'culvert-control': controlSettings,
  };
  for (const { metadata, spec } of deployed) {
    const rows = Object.values(tables[metadata.name]!);
    for (const { name, value } of spec.template.spec.containers[0].env) {
      const row = rows.find(({ env, overriddenBy }) => env === name || overriddenBy === name);
      assert.ok(row !== undefined, `${metadata.name} does not know ${name}`);
      if (value !== undefined) assert.notEqual(row.type.parse(value), undefined, `${name}=${value}`);
    }
  }
});

test('every variable that the chart gives the control plane is a setting', () => {
  const known = new Set<string>(Object.values(controlSettings).map(({ env }) => env));
  const names = [...read('deploy/chart/culvert/templates/control.yaml').matchAll(/- \{ name: ([A-Z_]+), value/g)];
  assert.ok(names.length > 8);
  for (const [, name = ''] of names) assert.ok(known.has(name), name);
});

test('the manifest of a mesh is made of its parts', () => {
  assert.equal(read('deploy/culvert.yaml'), makeManifest(), 'run node scripts/manifest.ts');
});

test('the control plane may read the kinds that it follows, and no others', () => {
  const rules = itemsOf('deploy/control.yaml').find(({ kind }) => kind === 'ClusterRole')!.rules as {
    apiGroups: string[];
    resources: string[];
    verbs: string[];
  }[];
  const read = rules.filter(({ verbs }) => verbs.includes('watch'));
  assert.ok(read.every(({ verbs }) => verbs.join() === 'list,watch'));
  assert.deepEqual(
    read.flatMap(({ apiGroups, resources }) => resources.map((resource) => `${apiGroups[0]} ${resource}`)).sort(),
    MESH_KINDS.map(({ group, plural }) => `${group} ${plural}`).sort(),
  );
});

test('alerts and the dashboard ask for metrics that there are', () => {
  const known = new Set<string>();
  const collect = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    if ('name' in value && 'help' in value)
      known.add(String(value.name) + (Reflect.get(value, 'type') === 'counter' ? '_total' : ''));
    else for (const inner of Object.values(value)) collect(inner);
  };
  collect({ ...families });
  collect(NODE_AGENT);
  collect(CONTROL);
  collect(CA);
  const alerts = parse(read('deploy/chart/culvert/alerts.yaml')) as { groups: { rules: { expr: string }[] }[] };
  const dashboard = JSON.parse(read('deploy/chart/culvert/dashboards/culvert.json')) as {
    panels: { targets?: { expr: string }[] }[];
  };
  const expressions = [
    ...alerts.groups.flatMap(({ rules }) => rules.map(({ expr }) => expr)),
    ...dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
  ];
  assert.ok(expressions.length > 20);
  for (const expression of expressions) {
    for (const [name] of expression.matchAll(/\b(?:istio|culvert|ztunnel|process|workload_manager|citadel)_\w+/g)) {
      assert.ok(known.has(name), `${name} in ${expression}`);
    }
  }
});

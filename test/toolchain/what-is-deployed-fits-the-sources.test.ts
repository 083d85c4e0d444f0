import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { NODE_AGENT } from '../../src/cni/metrics.ts';
import type { Setting } from '../../src/config/setting.ts';
import { nodeAgentSettings } from '../../src/config/settings/node-agent.ts';
import { settings } from '../../src/config/settings.ts';
import * as families from '../../src/metrics/families.ts';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const { version } = JSON.parse(read('package.json')) as { version: string };

interface Item {
  kind: string;
  metadata: { name: string };
  spec: { template: { spec: { containers: [{ image: string; env: { name: string; value?: string }[] }] } } };
}

const daemonSets = (parse(read('deploy/daemonset.yaml')) as { items: Item[] }).items.filter(
  ({ kind }) => kind === 'DaemonSet',
);

test('manifest and chart name the image that npm run image makes', () => {
  for (const { spec } of daemonSets) assert.equal(spec.template.spec.containers[0].image, `culvert:${version}`);
  const chart = parse(read('deploy/chart/culvert/Chart.yaml'));
  assert.deepEqual([chart.version, chart.appVersion], [version, version]);
});

test('every variable of the manifest is a setting, with a value that is accepted', () => {
  const tables: Record<string, Record<string, Setting>> = {
    'culvert-cni': nodeAgentSettings,
    'culvert-agent': settings,
  };
  for (const { metadata, spec } of daemonSets) {
    const rows = Object.values(tables[metadata.name]!);
    for (const { name, value } of spec.template.spec.containers[0].env) {
      const row = rows.find(({ env, overriddenBy }) => env === name || overriddenBy === name);
      assert.ok(row !== undefined, `${metadata.name} does not know ${name}`);
      if (value !== undefined) assert.notEqual(row.type.parse(value), undefined, `${name}=${value}`);
    }
  }
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
    for (const [name] of expression.matchAll(/\b(?:istio|culvert|ztunnel|process|workload_manager)_\w+/g)) {
      assert.ok(known.has(name), `${name} in ${expression}`);
    }
  }
});

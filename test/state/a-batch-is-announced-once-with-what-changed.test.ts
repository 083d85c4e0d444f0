import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MeshStore } from '../../src/state/mesh-state.ts';
import { meshOf, policy, service, workload } from './mesh-builder.ts';

const KEY = 'default/web.default.svc.cluster.local';
const uid = (name: string) => `Kubernetes//Pod/default/${name}`;

function announcements(mesh: MeshStore): Record<string, string[]>[] {
  const seen: Record<string, string[]>[] = [];
  const names = (kind: 'w ' | 's ', touched: ReadonlySet<string>) =>
    [...touched].filter((key) => key.startsWith(kind)).map((key) => key.slice(kind.length));
  mesh.subscribe(
    ({ touched, policies }) =>
      seen.push({ workloads: names('w ', touched), services: names('s ', touched), policies: [...policies] }),
    () => true,
  );
  return seen;
}

test('a batch is announced once, after all of it is visible', () => {
  const mesh = meshOf();
  const seen: (string | undefined)[] = [];
  mesh.subscribe(() => seen.push(mesh.workload(uid('b'))?.name));
  mesh.apply({ workloads: [workload('a'), workload('b')], services: [service('web')] });
  assert.deepEqual(seen, ['b']);
});

test('an announcement names workloads, policies, and services of which only endpoints changed', () => {
  const mesh = meshOf({ services: [service('web'), service('other')] });
  const seen = announcements(mesh);
  mesh.apply({ workloads: [workload('a', { services: { [KEY]: {} } })], policies: [policy('p')] });
  mesh.apply({ removedWorkloads: [uid('a')] });
  mesh.apply({ removedPolicies: ['default/p'], removedServices: ['default/other.default.svc.cluster.local'] });
  assert.deepEqual(seen, [
    { workloads: [uid('a')], services: [KEY], policies: ['default/p'] },
    { workloads: [uid('a')], services: [KEY], policies: [] },
    { workloads: [], services: ['default/other.default.svc.cluster.local'], policies: ['default/p'] },
  ]);
});

test('what is already there, or is not there to be removed, is not announced', () => {
  const batch = {
    workloads: [workload('a', { services: { [KEY]: { 80: 80 } } })],
    services: [service('web')],
    policies: [policy('p')],
  };
  const mesh = meshOf(batch);
  const seen = announcements(mesh);
  mesh.apply(structuredClone(batch));
  mesh.apply({ removedWorkloads: ['x'], removedServices: ['x/y'], removedPolicies: ['x/y'] });
  mesh.apply({});
  assert.deepEqual(seen, []);
});

test('within a batch removals come last', () => {
  const mesh = meshOf({ workloads: [workload('a')], removedWorkloads: [uid('a')] });
  assert.equal(mesh.workload(uid('a')), null);
});

test('nothing is announced after unsubscribing', () => {
  const mesh = meshOf();
  let calls = 0;
  const unsubscribe = mesh.subscribe(() => calls++);
  mesh.apply({ workloads: [workload('a')] });
  unsubscribe();
  mesh.apply({ workloads: [workload('b')] });
  assert.equal(calls, 1);
});

test('policies are indexed by scope, and indexed anew when replaced', () => {
  const mesh = meshOf({
    policies: [
      policy('ns', { namespace: 'x' }),
      policy('all', { namespace: 'istio-system', scope: 'Global' }),
      policy('one', { namespace: 'x', scope: 'WorkloadSelector' }),
    ],
  });
  assert.deepEqual([...mesh.namespacePolicies('x')], ['x/ns']);
  assert.deepEqual([...mesh.globalPolicies()], ['istio-system/all']);
  mesh.apply({
    policies: [policy('ns', { namespace: 'x', scope: 'Global' })],
    removedPolicies: ['istio-system/all'],
  });
  assert.deepEqual([...mesh.namespacePolicies('x')], []);
  assert.deepEqual([...mesh.globalPolicies()], ['x/ns']);
  assert.equal(mesh.policy('x/one')?.scope, 'WorkloadSelector');
});

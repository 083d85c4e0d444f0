import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { evaluate } from '../../src/policy/evaluate.ts';
import { PolicyScopes, type PolicyScopesOptions } from '../../src/policy/scopes.ts';
import type { Policy } from '../../src/policy/types.ts';
import { runInSlices } from '../../src/slices.ts';
import type { MeshStore } from '../../src/state/mesh-state.ts';
import { match, meshOf, policy, workload } from '../state/mesh-builder.ts';

const connection = { sourceIp: '10.0.0.1', sourceIdentity: null, destinationIp: '10.0.0.2', destinationPort: 80 };
const yes = match({ destinationPorts: [80] });
const no = match({ destinationPorts: [81] });

/** Pods a and b of one namespace, c of another; b lists a policy. */
function underTest(
  t: TestContext,
  policies: (readonly [string, Policy])[],
  { awaitedMs = 3_600_000, run = atOnce }: Partial<PolicyScopesOptions> = {},
) {
  const mesh = meshOf({
    policies,
    workloads: [
      workload('a'),
      workload('b', { authorizationPolicies: ['default/listed'] }),
      workload('c', { namespace: 'other' }),
    ],
  });
  const changes: (() => void)[] = [];
  const scopes = new PolicyScopes({ mesh, onChange: () => changes.shift()?.(), awaitedMs, run });
  t.after(() => scopes.close());
  mesh.subscribe(({ policies }) => scopes.changed(policies));
  const uid = (name: string) => `Kubernetes//Pod/${name === 'c' ? 'other' : 'default'}/${name}`;
  return {
    mesh,
    scopes,
    of: (name: string) => scopes.of(mesh.workload(uid(name))!),
    verdict: (name: string) => evaluate(scopes.of(mesh.workload(uid(name))!), connection).kind,
    changed: () => new Promise<void>((resolve) => changes.push(resolve)),
  };
}

test('pods share what applies to all of them, and an edit remakes only the scope that has it', (t) => {
  const { mesh, of } = underTest(t, [
    policy('everywhere', { namespace: 'istio-system', scope: 'Global', rules: no }),
    policy('here', { rules: no }),
    policy('listed', { scope: 'WorkloadSelector', rules: no }),
  ]);
  const [a, b, c] = [of('a'), of('b'), of('c')];
  assert.deepEqual([a.deny.length, b.deny.length, c.deny.length], [2, 3, 1]);
  assert.equal(a.deny[0], c.deny[0]);
  assert.equal(a.deny[1], b.deny[1]);
  mesh.apply({ policies: [policy('here', { rules: yes })] });
  assert.equal(of('a').deny[0], a.deny[0]);
  assert.notEqual(of('a').deny[1], a.deny[1]);
  assert.equal(of('b').deny[2], b.deny[2]);
});

test('every change shows: edited, added, removed, moved to another scope, attached, detached', (t) => {
  const { mesh, verdict } = underTest(t, []);
  const listed = (rules: Policy['rules'], scope: Policy['scope'] = 'WorkloadSelector') =>
    mesh.apply({ policies: [policy('listed', { scope, rules })] });
  listed(no);
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['allow', 'allow', 'allow']);
  listed(yes);
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['allow', 'deny', 'allow']);
  listed(yes, 'Namespace');
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['deny', 'deny', 'allow']);
  listed(yes, 'Global');
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['deny', 'deny', 'deny']);
  listed(yes);
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['allow', 'deny', 'allow']);
  mesh.apply({ workloads: [workload('a', { authorizationPolicies: ['default/listed'] }), workload('b')] });
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['deny', 'allow', 'allow']);
  mesh.apply({ workloads: [workload('a')], removedPolicies: ['default/listed'] });
  assert.deepEqual([verdict('a'), verdict('b'), verdict('c')], ['allow', 'allow', 'allow']);
});

test('a list is not mistaken for another, whatever its keys look like', (t) => {
  const { mesh, verdict } = underTest(t, []);
  mesh.apply({ policies: [policy('x', { rules: no }), policy('y', { rules: no })] });
  for (const listed of [['default/x\ndefault/y'], ['mesh'], ['namespace default'], ['["default/x"]']]) {
    mesh.apply({ workloads: [workload('a', { authorizationPolicies: ['default/x', 'default/y'] })] });
    assert.equal(verdict('a'), 'allow');
    mesh.apply({ workloads: [workload('a', { authorizationPolicies: listed })] });
    assert.equal(verdict('a'), 'wait', String(listed));
  }
});

test('connections wait for a listed policy that is not known, and are denied when it does not come', async (t) => {
  const { scopes, verdict, changed } = underTest(t, [], { awaitedMs: 20 });
  assert.equal(verdict('b'), 'wait');
  assert.equal(verdict('a'), 'allow');
  assert.equal(scopes.refusals().size, 0);
  await changed();
  assert.equal(verdict('b'), 'deny');
  assert.deepEqual([...scopes.refusals().keys()], ['default/listed']);
});

test('a listed policy that comes in time decides, and one that goes is awaited again', (t) => {
  const { mesh, verdict } = underTest(t, []);
  assert.equal(verdict('b'), 'wait');
  mesh.apply({ policies: [policy('listed', { scope: 'WorkloadSelector', action: 'Allow', rules: yes })] });
  assert.equal(verdict('b'), 'allow');
  mesh.apply({ removedPolicies: ['default/listed'] });
  assert.equal(verdict('b'), 'wait');
});

test('an explicit DENY and a policy that is not understood do not wait for another', (t) => {
  const { mesh, verdict } = underTest(t, [policy('deny', { rules: yes })]);
  assert.equal(verdict('b'), 'deny');
  mesh.apply({ policies: [policy('deny', { unintelligible: 'no sense' })] });
  assert.equal(verdict('b'), 'deny');
});

test('thousands of policies are compiled in slices: connections wait, then all of them are in force', async (t) => {
  const { mesh, scopes, of, verdict, changed } = underTest(t, many(0), { run: runInSlices });
  assert.equal(verdict('a'), 'wait');
  assert.equal(of('a').refusal?.reason, 'the policies of this workload are being prepared');
  await changed();
  assert.equal(verdict('a'), 'allow');
  assert.equal(scopes.refusals().size, 0);

  // What was in force stays in force until the edit is ready, and an edit during that is not lost.
  apply(mesh, [...many(1), policy('p4999', { rules: yes })]);
  apply(mesh, [policy('p0', { rules: yes })]);
  assert.equal(verdict('a'), 'allow');
  await changed();
  assert.equal(verdict('a'), 'deny');
  await changed();
  assert.deepEqual(evaluate(of('a'), connection), {
    kind: 'deny',
    reason: 'explicitly denied by: default/p0',
    policy: 'default/p0',
  });
});

test('scopes that no workload has are forgotten', (t) => {
  const { mesh, scopes, of } = underTest(t, [policy('here', { rules: no })]);
  const before = of('a').deny[0];
  scopes.retain([mesh.workload('Kubernetes//Pod/default/a')!]);
  assert.equal(of('a').deny[0], before);
  scopes.takeReplacedBytes();
  scopes.retain([]);
  assert.equal(scopes.takeReplacedBytes(), before!.words.byteLength + before!.text.byteLength);
  assert.equal(scopes.takeReplacedBytes(), 0);
  assert.notEqual(of('a').deny[0], before);
});

/** On a busy machine the first slice may end before little work does. */
const atOnce: typeof runInSlices = (work, done) => {
  for (;;) {
    const step = work.next();
    if (step.done) return done(step.value, false);
  }
};

function apply(mesh: MeshStore, policies: (readonly [string, Policy])[]): void {
  mesh.apply({ policies });
}

/** More than one slice can hold. None of them matches. */
function many(seed: number): (readonly [string, Policy])[] {
  return Array.from({ length: 5000 }, (_, index) =>
    policy(`p${index}`, {
      rules: Array.from({ length: 3 }, (_, rule) => [
        [{ ...no[0]![0]![0]!, destinationPorts: [1000 + index, seed, rule] }],
      ]),
    }),
  );
}

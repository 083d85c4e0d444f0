import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compilePolicies, policyKeysOf } from '../../src/policy/compile.ts';
import { evaluate } from '../../src/policy/evaluate.ts';
import { PolicyScopes } from '../../src/policy/scopes.ts';
import type { Policy } from '../../src/policy/types.ts';
import type { MeshUpdate } from '../../src/state/mesh-state.ts';
import { match, meshOf, policy, workload } from '../state/mesh-builder.ts';

const connections = [80, 81].map((destinationPort) => ({
  sourceIp: '10.0.0.1',
  sourceIdentity: 'spiffe://cluster.local/ns/default/sa/client',
  destinationIp: '10.0.0.2',
  destinationPort,
}));

const policyName = fc.constantFrom('p', 'q', 'r');
const namespace = fc.constantFrom('default', 'other');
const edited: fc.Arbitrary<MeshUpdate> = fc
  .record({
    name: policyName,
    namespace,
    scope: fc.constantFrom<Policy['scope']>('Global', 'Namespace', 'WorkloadSelector'),
    action: fc.constantFrom<Policy['action']>('Allow', 'Deny'),
    unintelligible: fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, fc.constant('no sense')),
    ports: fc.subarray([80, 81]),
  })
  .map(({ name, ports, ...fields }) => ({
    policies: [policy(name, { ...fields, rules: match({ destinationPorts: ports }) })],
  }));
const removed: fc.Arbitrary<MeshUpdate> = fc
  .record({ name: policyName, namespace })
  .map(({ name, namespace }) => ({ removedPolicies: [`${namespace}/${name}`] }));
const attached: fc.Arbitrary<MeshUpdate> = fc
  .record({
    name: fc.constantFrom('a', 'b'),
    namespace,
    listed: fc.subarray(['default/p', 'default/q', 'other/r']),
  })
  .map(({ name, namespace, listed }) => ({
    workloads: [workload(name, { namespace, authorizationPolicies: listed })],
  }));

/** After each edit: whether somebody looks, and how many steps of the work under way are done. */
const step = fc.record({
  edit: fc.oneof(edited, removed, attached),
  steps: fc.nat({ max: 12 }),
  looks: fc.boolean(),
});

interface Work {
  readonly steps: Generator<void, unknown>;
  done(result: unknown): void;
}

test('after any edits, with work under way at any moment, what is in force is what the mesh state says', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (given) => {
      const mesh = meshOf({
        workloads: ['default', 'other'].flatMap((namespace) => ['a', 'b'].map((name) => workload(name, { namespace }))),
      });
      const works: Work[] = [];
      const scopes = new PolicyScopes({
        mesh,
        onChange: look,
        run: (steps, done) => works.push({ steps, done: (result) => done(result as never, true) }),
      });
      mesh.subscribe(({ policies }) => scopes.changed(policies));

      function look(): void {
        for (const each of mesh.workloads()) scopes.of(each);
      }
      function advance(count: number): void {
        for (let left = count; left > 0 && works.length > 0; left--) {
          const step = works[0]!.steps.next();
          if (step.done) works.shift()!.done(step.value);
        }
      }

      look();
      for (const { edit, steps, looks } of given) {
        mesh.apply(edit);
        if (looks) look();
        advance(steps);
      }
      look();
      advance(10_000);
      assert.equal(works.length, 0);
      for (const each of mesh.workloads()) {
        const fresh = compilePolicies(mesh, each);
        const applying = [...policyKeysOf(mesh, each)].map((key) => mesh.policy(key));
        const isBroken = applying.some((policy) => policy !== null && policy.unintelligible !== null);
        const isAwaited = applying.includes(null) && !isBroken;
        for (const connection of connections) {
          const verdict = evaluate(fresh, connection);
          const isExplicit = verdict.kind === 'deny' && verdict.reason.startsWith('explicitly');
          // What is not known is awaited first, unless something denies whatever it says.
          const wanted = isAwaited && !isExplicit ? 'wait' : verdict.kind;
          assert.equal(evaluate(scopes.of(each), connection).kind, wanted);
        }
      }
      scopes.close();
    }),
    { numRuns: 500 },
  );
});

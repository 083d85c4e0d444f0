import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JudgedConnection } from '../../src/filters/policy.ts';
import type { CompiledPolicies } from '../../src/policy/types.ts';
import type { PodRuntime } from '../../src/worker/pod-runtime.ts';
import { PolicyReview } from '../../src/worker/policy-review.ts';
import { match, policy } from '../state/mesh-builder.ts';
import { ALLOW_ALL, compiled } from './support/plane-under-test.ts';

const CONNECTIONS = 50_000;

/** A pod with very many connections, one half from each of two addresses; sockets are not what this is about. */
function crowdedPod() {
  const state = { cut: [] as string[] };
  const pod = {
    policies: ALLOW_ALL as CompiledPolicies | null,
    connections: new Set<JudgedConnection>(),
    undecided: [] as (() => void)[],
    takeUndecided: () => pod.undecided.splice(0),
  };
  for (let index = 0; index < CONNECTIONS; index++) {
    const sourceIp = index % 2 === 0 ? '10.0.0.1' : '10.0.0.2';
    const connection = {
      listener: 'inbound-hbone',
      context: {},
      isOver: false,
      policies: () => pod.policies,
      policyFacts: () => ({ sourceIp, sourceIdentity: null, destinationIp: '10.0.0.9', destinationPort: 80 }),
      cut() {
        connection.isOver = true;
        state.cut.push(sourceIp);
      },
    };
    pod.connections.add(connection as unknown as JudgedConnection);
  }
  return { pod, state, runtime: pod as unknown as PodRuntime };
}

const deny = (ip: string) => compiled(policy('deny', { namespace: 'demo', rules: match({ sourceIps: [ip] }) }));

test('the review of a crowd lets other work through, and cuts exactly those denied', async () => {
  const { pod, state, runtime } = crowdedPod();
  const review = new PolicyReview();
  let turns = 0;
  let isOver = false;
  pod.undecided.push(() => {
    isOver = true;
  });
  pod.policies = deny('10.0.0.1');
  review.begin(runtime);
  assert.ok(!isOver, 'all was done in one go');
  for (; !isOver; turns++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(turns >= 2, `${turns} turns`);
  assert.equal(state.cut.length, CONNECTIONS / 2);
  assert.ok(state.cut.every((ip) => ip === '10.0.0.1'));
});

test('policies that change during a review hold for all connections in the end', async () => {
  const { pod, state, runtime } = crowdedPod();
  const review = new PolicyReview();
  pod.policies = ALLOW_ALL;
  review.begin(runtime);
  pod.policies = deny('10.0.0.2');
  review.begin(runtime);
  pod.policies = deny('10.0.0.1');
  review.begin(runtime);
  let isOver = false;
  while (!isOver) {
    await new Promise((resolve) => setImmediate(resolve));
    isOver = state.cut.filter((ip) => ip === '10.0.0.1').length === CONNECTIONS / 2;
  }
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilePolicies } from '../../src/policy/compile.ts';
import { evaluate } from '../../src/policy/evaluate.ts';
import type { Policy, Verdict } from '../../src/policy/types.ts';
import { match, meshOf, policy, workload } from '../state/mesh-builder.ts';

const yes = match({ destinationPorts: [80] });
const no = match({ destinationPorts: [81] });
const allow: Verdict = { kind: 'allow' };
const notAllowed: Verdict = { kind: 'deny', reason: 'allow policies exist, but none allowed', policy: null };
const denied = (key: string): Verdict => ({ kind: 'deny', reason: `explicitly denied by: ${key}`, policy: key });

interface Row {
  readonly what: string;
  readonly policies: readonly (readonly [string, Policy])[];
  readonly listed?: readonly string[];
  readonly verdict: Verdict;
  readonly log: readonly string[];
}

const rows: readonly Row[] = [
  { what: 'without policies everything is allowed', policies: [], verdict: allow, log: ['no allow policies, allow'] },
  {
    what: 'a DENY that matches denies',
    policies: [policy('d', { rules: yes })],
    verdict: denied('default/d'),
    log: ['deny policy match default/d'],
  },
  {
    what: 'a DENY that does not match allows',
    policies: [policy('d', { rules: no })],
    verdict: allow,
    log: ['no allow policies, allow'],
  },
  {
    what: 'a DENY wins over an ALLOW',
    policies: [policy('a', { action: 'Allow', rules: yes }), policy('d', { rules: yes })],
    verdict: denied('default/d'),
    log: ['deny policy match default/d'],
  },
  {
    what: 'an ALLOW that matches allows',
    policies: [policy('a', { action: 'Allow', rules: no }), policy('b', { action: 'Allow', rules: yes })],
    verdict: allow,
    log: ['allow policy match default/b'],
  },
  {
    what: 'with an ALLOW that does not match everything is denied',
    policies: [policy('a', { action: 'Allow', rules: no })],
    verdict: notAllowed,
    log: ['no allow policies matched'],
  },
  {
    what: 'an ALLOW without rules denies everything',
    policies: [policy('a', { action: 'Allow' })],
    verdict: notAllowed,
    log: ['no allow policies matched'],
  },
  {
    what: 'a DENY without rules does nothing',
    policies: [policy('d')],
    verdict: allow,
    log: ['no allow policies, allow'],
  },
  {
    what: 'a dry-run DENY only says what it would do',
    policies: [policy('d', { rules: yes, dryRun: true })],
    verdict: allow,
    log: ['dry-run: deny policy match default/d', 'no allow policies, allow'],
  },
  {
    what: 'a dry-run ALLOW only says what it would do',
    policies: [policy('a', { action: 'Allow', rules: yes, dryRun: true })],
    verdict: allow,
    log: ['dry-run: allow policy match default/a', 'no allow policies, allow'],
  },
  {
    what: 'a dry-run ALLOW that does not match only says so',
    policies: [policy('a', { action: 'Allow', rules: no, dryRun: true })],
    verdict: allow,
    log: ['dry-run: no allow policies match', 'no allow policies, allow'],
  },
  {
    what: 'a dry-run ALLOW does not stand in for an enforced one',
    policies: [policy('a', { action: 'Allow', rules: yes, dryRun: true }), policy('b', { action: 'Allow', rules: no })],
    verdict: notAllowed,
    log: ['dry-run: allow policy match default/a', 'no allow policies matched'],
  },
  {
    what: 'a dry-run DENY does not stop an enforced one',
    policies: [policy('d', { rules: yes, dryRun: true }), policy('e', { rules: yes })],
    verdict: denied('default/e'),
    log: ['dry-run: deny policy match default/d', 'deny policy match default/e'],
  },
  {
    what: 'policies of another namespace do not apply',
    policies: [policy('d', { namespace: 'other', rules: yes })],
    verdict: allow,
    log: ['no allow policies, allow'],
  },
  {
    what: 'global policies apply everywhere',
    policies: [policy('d', { namespace: 'istio-system', scope: 'Global', rules: yes })],
    verdict: denied('istio-system/d'),
    log: ['deny policy match istio-system/d'],
  },
  {
    what: 'selector policies apply where they are listed',
    policies: [policy('d', { namespace: 'other', scope: 'WorkloadSelector', rules: yes })],
    listed: ['other/d'],
    verdict: denied('other/d'),
    log: ['deny policy match other/d'],
  },
  {
    what: 'selector policies do not apply where they are not listed',
    policies: [policy('d', { scope: 'WorkloadSelector', rules: yes })],
    verdict: allow,
    log: ['no allow policies, allow'],
  },
  {
    what: 'of several that deny the first by key is named',
    policies: [policy('z', { rules: yes }), policy('b', { rules: yes })],
    verdict: denied('default/b'),
    log: ['deny policy match default/b'],
  },
  {
    what: 'a listed policy of the own namespace counts once',
    policies: [policy('a', { action: 'Allow', rules: yes })],
    listed: ['default/a'],
    verdict: allow,
    log: ['allow policy match default/a'],
  },
  {
    what: 'a listed policy that is unknown denies, by name',
    policies: [policy('a', { action: 'Allow', rules: yes })],
    listed: ['default/gone'],
    verdict: {
      kind: 'deny',
      reason: 'unknown policy default/gone is listed for this workload',
      policy: 'default/gone',
    },
    log: ['deny, a policy cannot be enforced default/gone'],
  },
  {
    what: 'an explicit DENY is the reason even beside an unknown policy',
    policies: [policy('d', { rules: yes })],
    listed: ['default/gone'],
    verdict: denied('default/d'),
    log: ['deny policy match default/d'],
  },
];

for (const { what, policies, listed, verdict, log } of rows) {
  test(what, () => {
    const mesh = meshOf({ policies, workloads: [workload('server', { authorizationPolicies: listed ?? [] })] });
    const compiled = structuredClone(compilePolicies(mesh, mesh.workload('Kubernetes//Pod/default/server')!));
    const connection = { sourceIp: '10.0.0.1', sourceIdentity: null, destinationIp: '10.0.0.2', destinationPort: 80 };
    const lines: string[] = [];
    const observe = (message: string, key: string | null) => {
      lines.push(key === null ? message : `${message} ${key}`);
    };
    assert.deepEqual(evaluate(compiled, connection, observe), verdict);
    assert.deepEqual(lines, log);
    assert.deepEqual(evaluate(compiled, connection), verdict);
  });
}

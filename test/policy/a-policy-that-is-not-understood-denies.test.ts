import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilePolicies, findPolicyFault } from '../../src/policy/compile.ts';
import { evaluate } from '../../src/policy/evaluate.ts';
import { EMPTY_MATCH, type Policy, type PolicyMatch } from '../../src/policy/types.ts';
import { match, meshOf, policy, workload } from '../state/mesh-builder.ts';

const connection = { sourceIp: '10.0.0.1', sourceIdentity: null, destinationIp: '10.0.0.2', destinationPort: 80 };

function verdictOf(...policies: (readonly [string, Policy])[]) {
  const mesh = meshOf({ policies, workloads: [workload('server')] });
  return evaluate(compilePolicies(mesh, mesh.workload('Kubernetes//Pod/default/server')!), connection);
}

/** Entries as a source could hand them over in spite of the types. */
const broken: readonly [field: keyof PolicyMatch, value: unknown, shown: string][] = [
  ['principals', null, 'null'],
  ['principals', { Regex: 'a.*' }, '{"Regex":"a.*"}'],
  ['principals', { Exact: 'a', Prefix: 'a' }, '{"Exact":"a","Prefix":"a"}'],
  ['serviceAccounts', null, 'null'],
  ['sourceIps', 10, '10'],
  ['destinationPorts', '80', '"80"'],
  ['sourceIps', '10.0.0', '"10.0.0"'],
  ['sourceIps', '10.0.0.0/33', '"10.0.0.0/33"'],
  ['notSourceIps', '', '""'],
  ['destinationIps', '2001:db8::/129', '"2001:db8::/129"'],
  ['notDestinationIps', 'host', '"host"'],
  ['principals', {}, '{}'],
  ['notPrincipals', { Exact: 1 }, '{"Exact":1}'],
  ['namespaces', {}, '{}'],
  ['notNamespaces', {}, '{}'],
  ['serviceAccounts', { namespace: 'a' }, '{"namespace":"a"}'],
  ['notServiceAccounts', {}, '{}'],
  ['destinationPorts', 65616, '65616'],
  ['notDestinationPorts', -1, '-1'],
];

for (const [field, value, shown] of broken) {
  for (const action of ['Allow', 'Deny'] as const) {
    test(`${action} with ${field} ${shown} denies and names the entry`, () => {
      const rules: Policy['rules'] = [
        [
          [],
          [
            { ...EMPTY_MATCH, destinationPorts: [1] },
            { ...EMPTY_MATCH, [field]: [value] },
          ],
        ],
      ];
      assert.deepEqual(verdictOf(policy('p', { action, rules })), {
        kind: 'deny',
        reason: `policy default/p cannot be understood: rules[0][1][1].${field}[0] is ${shown}`,
        policy: 'default/p',
      });
    });
  }
}

test('a field, a list and an action that have no meaning deny', () => {
  const rules = (match: object) => [[[match as PolicyMatch]]];
  const cases: readonly [Partial<Policy>, string][] = [
    [{ rules: rules({ ...EMPTY_MATCH, hosts: ['a'] }) }, 'rules[0][0][0] has the unknown field hosts'],
    [{ rules: rules({ ...EMPTY_MATCH, principals: undefined }) }, 'rules[0][0][0].principals is no list'],
    [{ action: 'Audit' as 'Deny' }, 'the action is "Audit"'],
  ];
  for (const [fields, fault] of cases) {
    assert.deepEqual(verdictOf(policy('p', fields)), {
      kind: 'deny',
      reason: `policy default/p cannot be understood: ${fault}`,
      policy: 'default/p',
    });
  }
});

test('a policy its source could not understand denies with the reason of the source', () => {
  assert.deepEqual(verdictOf(policy('p', { unintelligible: 'unknown action 7' })), {
    kind: 'deny',
    reason: 'policy default/p cannot be understood: unknown action 7',
    policy: 'default/p',
  });
});

test('a policy that is not understood denies even where an ALLOW matches', () => {
  const allow = policy('a', { action: 'Allow', rules: match({ destinationPorts: [80] }) });
  assert.equal(verdictOf(allow, policy('p', { unintelligible: 'x' })).kind, 'deny');
  assert.equal(verdictOf(allow).kind, 'allow');
});

test('a dry-run policy enforces nothing, understood or not', () => {
  assert.equal(verdictOf(policy('p', { unintelligible: 'x', dryRun: true })).kind, 'allow');
});

test('a connection whose address cannot be read is denied', () => {
  const mesh = meshOf({ workloads: [workload('server')] });
  const compiled = compilePolicies(mesh, mesh.workload('Kubernetes//Pod/default/server')!);
  assert.equal(evaluate(compiled, { ...connection, sourceIp: 'x' }).kind, 'deny');
});

test('a source can ask beforehand what is wrong with a policy', () => {
  assert.equal(findPolicyFault(policy('p', { rules: match({ sourceIps: ['10.0.0.0/8'] }) })[1]), null);
  assert.equal(
    findPolicyFault(policy('p', { rules: match({ sourceIps: ['x'] }) })[1]),
    'rules[0][0][0].sourceIps[0] is "x"',
  );
});

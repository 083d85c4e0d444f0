import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilePolicies } from '../../src/policy/compile.ts';
import { evaluate } from '../../src/policy/evaluate.ts';
import { EMPTY_MATCH, type Policy, type PolicyConnection, type PolicyMatch } from '../../src/policy/types.ts';
import { match, meshOf, policy, workload } from '../state/mesh-builder.ts';

const CLIENT = 'spiffe://cluster.local/ns/default/sa/client';
const connection: PolicyConnection = {
  sourceIp: '10.0.0.1',
  sourceIdentity: CLIENT,
  destinationIp: '10.0.0.2',
  destinationPort: 80,
};

/** Whether rules match a connection, seen through a DENY policy of them alone. */
function matches(rules: Policy['rules'], changes: Partial<PolicyConnection> = {}): boolean {
  const mesh = meshOf({ workloads: [workload('server')], policies: [policy('p', { rules })] });
  const compiled = compilePolicies(mesh, mesh.workload('Kubernetes//Pod/default/server')!);
  return evaluate(structuredClone(compiled), { ...connection, ...changes }).kind === 'deny';
}

type Field = keyof PolicyMatch;
const fields: readonly [
  field: Field,
  negated: Field,
  value: unknown,
  fits: boolean,
  changes?: Partial<PolicyConnection>,
][] = [
  ['sourceIps', 'notSourceIps', '10.0.0.0/24', true],
  ['sourceIps', 'notSourceIps', '10.0.0.1', true],
  ['sourceIps', 'notSourceIps', '10.0.0.2/32', false],
  ['sourceIps', 'notSourceIps', '::/0', false],
  ['sourceIps', 'notSourceIps', '2001:db8::/32', true, { sourceIp: '2001:db8:1::1' }],
  ['sourceIps', 'notSourceIps', '10.0.0.0/8', true, { sourceIp: '::ffff:10.0.0.1' }],
  // What lies beyond the length of a block does not count.
  ['sourceIps', 'notSourceIps', '10.0.0.99/24', true],
  ['sourceIps', 'notSourceIps', '0.0.0.0/0', true],
  ['sourceIps', 'notSourceIps', '0.0.0.0/0', false, { sourceIp: '2001:db8::1' }],
  ['sourceIps', 'notSourceIps', '::ffff:10.0.0.0/120', true],
  ['sourceIps', 'notSourceIps', '::ffff:10.0.0.1', true],
  ['destinationIps', 'notDestinationIps', '10.0.0.99/24', true],
  ['destinationIps', 'notDestinationIps', '10.0.0.2/31', true],
  ['destinationIps', 'notDestinationIps', '10.0.0.1/32', false],
  ['destinationPorts', 'notDestinationPorts', 80, true],
  ['destinationPorts', 'notDestinationPorts', 8080, false],
  ['principals', 'notPrincipals', { Exact: 'cluster.local/ns/default/sa/client' }, true],
  ['principals', 'notPrincipals', { Exact: CLIENT }, false],
  ['principals', 'notPrincipals', { Prefix: 'cluster.local/' }, true],
  ['principals', 'notPrincipals', { Prefix: 'spiffe' }, false],
  ['principals', 'notPrincipals', { Suffix: '/sa/client' }, true],
  ['principals', 'notPrincipals', { Suffix: '/sa/other' }, false],
  ['principals', 'notPrincipals', { Presence: [] }, true],
  ['principals', 'notPrincipals', { Presence: [] }, false, { sourceIdentity: null }],
  ['principals', 'notPrincipals', { Prefix: '' }, false, { sourceIdentity: null }],
  ['principals', 'notPrincipals', { Presence: [] }, false, { sourceIdentity: 'cluster.local/ns/default/sa/client' }],
  ['namespaces', 'notNamespaces', { Exact: 'default' }, true],
  ['namespaces', 'notNamespaces', { Prefix: 'def' }, true],
  ['namespaces', 'notNamespaces', { Suffix: 'ault' }, true],
  ['namespaces', 'notNamespaces', { Prefix: 'ault' }, false],
  ['namespaces', 'notNamespaces', { Suffix: 'def' }, false],
  ['namespaces', 'notNamespaces', { Prefix: 'default' }, true],
  ['namespaces', 'notNamespaces', { Suffix: 'default' }, true],
  ['namespaces', 'notNamespaces', { Prefix: 'default-and-more' }, false],
  ['namespaces', 'notNamespaces', { Suffix: 'more-and-default' }, false],
  ['namespaces', 'notNamespaces', { Exact: '' }, false],
  ['namespaces', 'notNamespaces', { Exact: 'default' }, false, { sourceIdentity: null }],
  ['namespaces', 'notNamespaces', { Prefix: 'def' }, false, { sourceIdentity: null }],
  ['namespaces', 'notNamespaces', { Suffix: 'ault' }, false, { sourceIdentity: null }],
  ['namespaces', 'notNamespaces', { Exact: 'Default' }, false],
  ['namespaces', 'notNamespaces', { Presence: [] }, true],
  ['namespaces', 'notNamespaces', { Presence: [] }, false, { sourceIdentity: null }],
  ['namespaces', 'notNamespaces', { Exact: '' }, true, { sourceIdentity: null }],
  ['namespaces', 'notNamespaces', { Presence: [] }, false, { sourceIdentity: 'spiffe://td/x/default/sa/client' }],
  ['serviceAccounts', 'notServiceAccounts', { namespace: 'default', serviceAccount: 'client' }, true],
  [
    'serviceAccounts',
    'notServiceAccounts',
    { namespace: 'default', serviceAccount: 'client' },
    true,
    { sourceIdentity: 'spiffe://other.domain/ns/default/sa/client' },
  ],
  ['serviceAccounts', 'notServiceAccounts', { namespace: 'other', serviceAccount: 'client' }, false],
  ['serviceAccounts', 'notServiceAccounts', { namespace: 'default', serviceAccount: 'other' }, false],
  ['serviceAccounts', 'notServiceAccounts', { namespace: '', serviceAccount: '' }, false, { sourceIdentity: null }],
];

for (const [field, negated, value, fits, changes] of fields) {
  const of = changes === undefined ? '' : ` for ${JSON.stringify(changes)}`;
  test(`${field} ${JSON.stringify(value)} ${fits ? 'fits' : 'does not fit'}${of}, and ${negated} the other way round`, () => {
    assert.equal(matches(match({ [field]: [value] }), changes), fits);
    assert.equal(matches(match({ [negated]: [value] }), changes), !fits);
  });
}

const yes: PolicyMatch = { ...EMPTY_MATCH, destinationPorts: [80] };
const no: PolicyMatch = { ...EMPTY_MATCH, destinationPorts: [81] };

const structures: readonly [what: string, rules: Policy['rules'], matched: boolean][] = [
  ['no rules never match', [], false],
  ['a rule without clauses matches', [[]], true],
  ['a clause without matches matches', [[[]]], true],
  ['a match without values never matches', [[[EMPTY_MATCH]]], false],
  ['a match without values does not spoil its neighbour', [[[EMPTY_MATCH, yes]]], true],
  ['a clause that can never match spoils its rule', [[[yes], [EMPTY_MATCH]]], false],
  ['a rule that can never match does not spoil its neighbour', [[[EMPTY_MATCH]], [[yes]]], true],
  ['one of the rules is enough', [[[no]], [[yes]]], true],
  ['all clauses are needed', [[[yes], [no]]], false],
  ['all clauses are enough', [[[yes], [yes]]], true],
  ['one of the matches of a clause is enough', [[[no, yes]]], true],
  ['all fields of a match are needed', match({ destinationPorts: [80], sourceIps: ['192.0.2.0/24'] }), false],
  ['one of the values of a field is enough', match({ destinationPorts: [79, 80] }), true],
  ['one of the unwanted values is too much', match({ notDestinationPorts: [79, 80] }), false],
  [
    'a wanted value that is also unwanted is too much',
    match({ destinationPorts: [80], notDestinationPorts: [80] }),
    false,
  ],
  [
    'wanted and unwanted values of one field go together',
    match({ sourceIps: ['10.0.0.0/8'], notSourceIps: ['10.1.0.0/16'] }),
    true,
  ],
];

for (const [what, rules, matched] of structures) {
  test(what, () => assert.equal(matches(rules), matched));
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compilePolicies, policyKeysOf } from '../../src/policy/compile.ts';
import { evaluate } from '../../src/policy/evaluate.ts';
import { explainPolicies } from '../../src/policy/explain.ts';
import type {
  Policy,
  PolicyConnection,
  PolicyMatch,
  ServiceAccountMatch,
  StringMatch,
} from '../../src/policy/types.ts';
import type { PolicyKey } from '../../src/state/types.ts';
import { meshOf, policy, workload } from '../state/mesh-builder.ts';

/** Small pools, so that values meet. */
const NAMES = ['a', 'b', 'ab', 'ba', '', 'é'];
const IPS = ['10.0.0.1', '10.0.0.2', '10.1.2.3', '192.0.2.9', '2001:db8::1', '2001:db8:1::1', '::ffff:10.0.0.1'];
const BLOCKS = [
  '0.0.0.0/0',
  '10.0.0.0/8',
  '10.0.0.0/31',
  '10.0.0.1',
  '10.0.0.2/32',
  '::/0',
  '2001:db8::/32',
  '2001:db8::1/128',
  '::ffff:10.0.0.0/104',
];
const PORTS = [0, 79, 80, 8080, 65535];

const name = fc.constantFrom(...NAMES);
const principal = fc.oneof(
  fc.tuple(name, name, name).map(([td, ns, sa]) => `${td}/ns/${ns}/sa/${sa}`),
  fc.constantFrom('', 'a/ns/b', 'a/ns/b/sa/a/x'),
);
const fragment = fc.oneof(principal, name, fc.constantFrom('a/ns/', '/sa/a', 'a/ns/b/sa/'));
const text = (values: fc.Arbitrary<string>): fc.Arbitrary<StringMatch> =>
  fc.oneof(
    values.map((Exact) => ({ Exact })),
    values.map((Prefix) => ({ Prefix })),
    values.map((Suffix) => ({ Suffix })),
    fc.constant({ Presence: [] as const }),
  );
const account: fc.Arbitrary<ServiceAccountMatch> = fc.record({ namespace: name, serviceAccount: name });
const few = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 5, arbitrary: fc.constant([]) }, { weight: 2, arbitrary: fc.array(value, { maxLength: 3 }) });
const block = fc.constantFrom(...BLOCKS);
const port = fc.constantFrom(...PORTS);
const match: fc.Arbitrary<PolicyMatch> = fc.record({
  namespaces: few(text(fragment)),
  notNamespaces: few(text(fragment)),
  serviceAccounts: few(account),
  notServiceAccounts: few(account),
  principals: few(text(fragment)),
  notPrincipals: few(text(fragment)),
  sourceIps: few(block),
  notSourceIps: few(block),
  destinationIps: few(block),
  notDestinationIps: few(block),
  destinationPorts: few(port),
  notDestinationPorts: few(port),
});
const rules = fc.array(fc.array(fc.array(match, { maxLength: 3 }), { maxLength: 2 }), { maxLength: 4 });
const policies = fc.array(
  fc.record({
    namespace: fc.constantFrom('default', 'other'),
    scope: fc.constantFrom('Global' as const, 'Namespace' as const, 'WorkloadSelector' as const),
    action: fc.constantFrom('Allow' as const, 'Deny' as const),
    dryRun: fc.boolean(),
    unintelligible: fc.oneof({ weight: 20, arbitrary: fc.constant(null) }, fc.constant('no sense')),
    rules,
  }),
  { maxLength: 6 },
);
const connection: fc.Arbitrary<PolicyConnection> = fc.record({
  sourceIp: fc.constantFrom(...IPS),
  sourceIdentity: fc.oneof(
    fc.constant(null),
    principal.map((id) => `spiffe://${id}`),
    principal,
  ),
  destinationIp: fc.constantFrom(...IPS),
  destinationPort: port,
});

test('compiled policies judge every connection as a plain reading of the rules does, and so does the explanation', () => {
  fc.assert(
    fc.property(
      policies,
      fc.array(fc.nat({ max: 7 }), { maxLength: 3 }),
      fc.array(connection, { minLength: 1 }),
      check,
    ),
    { numRuns: 2000 },
  );
});

function check(given: readonly Partial<Policy>[], listed: number[], connections: readonly PolicyConnection[]): void {
  const entries = given.map((fields, index) => policy(`p${index}`, fields));
  const authorizationPolicies = listed.map((index) => entries[index]?.[0] ?? `default/unknown${index}`);
  const mesh = meshOf({ policies: entries, workloads: [workload('server', { authorizationPolicies })] });
  const server = mesh.workload('Kubernetes//Pod/default/server')!;
  const compiled = structuredClone(compilePolicies(mesh, server));
  const applicable = entries.filter(
    ([key, { scope, namespace }]) =>
      scope === 'Global' || (scope === 'Namespace' && namespace === 'default') || authorizationPolicies.includes(key),
  );
  const unknown = authorizationPolicies.filter((key) => !entries.some(([known]) => known === key));
  for (const each of connections) {
    const verdict = evaluate(compiled, each);
    const wanted = judge(applicable, unknown.sort(), each);
    assert.deepEqual([verdict.kind, 'policy' in verdict ? verdict.policy : null], wanted);
    const explained = finish(
      explainPolicies(
        [...policyKeysOf(mesh, server)].map((key) => [key, mesh.policy(key)]),
        each,
      ),
    );
    assert.equal(explained.verdict, wanted[0]);
    if (wanted[0] === 'deny') assert.equal(explained.decidedBy?.policy ?? null, wanted[1]);
  }
}

function finish<T>(work: Generator<void, T>): T {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

/** Spec §5.2, by the letter. */
function judge(
  policies: readonly (readonly [PolicyKey, Policy])[],
  unknown: readonly PolicyKey[],
  connection: PolicyConnection,
): [verdict: 'allow' | 'deny', policy: PolicyKey | null] {
  const enforced = policies.filter(([, { dryRun }]) => !dryRun).sort(([a], [b]) => (a < b ? -1 : 1));
  const understood = enforced.filter(([, { unintelligible }]) => unintelligible === null);
  const matching = (action: string) =>
    understood.find(([, policy]) => policy.action === action && matches(policy, connection));
  const denying = matching('Deny');
  if (denying !== undefined) return ['deny', denying[0]];
  const broken = [
    ...enforced.filter(([, { unintelligible }]) => unintelligible !== null).map(([key]) => key),
    ...unknown,
  ].sort();
  if (broken.length > 0) return ['deny', broken[0]!];
  if (!understood.some(([, { action }]) => action === 'Allow') || matching('Allow') !== undefined)
    return ['allow', null];
  return ['deny', null];
}

function matches({ rules }: Policy, connection: PolicyConnection): boolean {
  return rules.some((clauses) =>
    clauses.every((matches) => matches.length === 0 || matches.some((match) => holds(match, connection))),
  );
}

function holds(match: PolicyMatch, { sourceIp, sourceIdentity, destinationIp, destinationPort }: PolicyConnection) {
  if (Object.values(match).every((values) => values.length === 0)) return false;
  const principal = sourceIdentity?.startsWith('spiffe://') ? sourceIdentity.slice('spiffe://'.length) : null;
  const [, namespace = '', serviceAccount = null] = /^[^/]*\/ns\/([^/]*)\/sa\/([^/]*)$/.exec(principal ?? '') ?? [];
  const fits = (way: StringMatch, value: string) => {
    if ('Exact' in way) return value === way.Exact;
    if ('Prefix' in way) return value.startsWith(way.Prefix);
    return 'Suffix' in way ? value.endsWith(way.Suffix) : value !== '';
  };
  const passes = <T>(wanted: readonly T[], unwanted: readonly T[], fit: (value: T) => boolean) =>
    (wanted.length === 0 || wanted.some(fit)) && !unwanted.some(fit);
  return (
    passes(match.namespaces, match.notNamespaces, (way) => fits(way, namespace)) &&
    passes(match.principals, match.notPrincipals, (way) => principal !== null && fits(way, principal)) &&
    passes(
      match.serviceAccounts,
      match.notServiceAccounts,
      (value) => value.namespace === namespace && value.serviceAccount === serviceAccount,
    ) &&
    passes(match.sourceIps, match.notSourceIps, (value) => contains(value, sourceIp)) &&
    passes(match.destinationIps, match.notDestinationIps, (value) => contains(value, destinationIp)) &&
    passes(match.destinationPorts, match.notDestinationPorts, (value) => value === destinationPort)
  );
}

/** Bit by bit, on the text of all bits. */
function contains(block: string, ip: string): boolean {
  const [base = '', length] = block.split('/');
  const [network, address] = [bitsOf(base), bitsOf(ip)];
  if (network.length !== address.length) return false;
  const mapped = base.startsWith('::ffff:') ? 96 : 0;
  const prefix = length === undefined ? network.length : Number(length) - mapped;
  return network.slice(0, prefix) === address.slice(0, prefix);
}

function bitsOf(ip: string): string {
  const bits = (value: number, width: number) => value.toString(2).padStart(width, '0');
  const ipv4 = ip.replace('::ffff:', '');
  if (ipv4.includes('.'))
    return ipv4
      .split('.')
      .map((octet) => bits(Number(octet), 8))
      .join('');
  const [head = '', tail = ''] = ip.split('::');
  const [first, last] = [head, tail].map((half) => (half === '' ? [] : half.split(':'))) as [string[], string[]];
  const groups = [...first, ...new Array(8 - first.length - last.length).fill('0'), ...last];
  return groups.map((group) => bits(Number.parseInt(group, 16), 16)).join('');
}

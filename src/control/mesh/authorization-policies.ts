/** AuthorizationPolicy → `istio.security.Authorization`, and what its status says of that (control-02 §1). */
import type { AuthorizationPolicy, Rule, ValueField, Values, When } from '../objects/authorization-policy.ts';
import { type Condition, ZTUNNEL_ACCEPTED } from '../objects/reported-conditions.ts';
import type { AuthorizationMessage, Clause, Group, Match, MatchField } from './authorization-messages.ts';

export interface PolicySettings {
  readonly rootNamespace: string;
  readonly allowDryRun: boolean;
}

export interface ConvertedPolicy {
  /** Null for a policy that is not for agents of nodes. */
  readonly message: AuthorizationMessage | null;
  /** Null when the status is another one's to write. */
  readonly condition: Condition | null;
}

export function convertAuthorizationPolicy(
  policy: AuthorizationPolicy,
  { rootNamespace, allowDryRun }: PolicySettings,
): ConvertedPolicy {
  const { name, namespace, action } = policy;
  if (policy.isDryRun && !allowDryRun) {
    return notSent(`policy ${namespace}/${name} is a dry run, which is not enabled: it is neither enforced nor logged`);
  }
  if (policy.targets.length > 0) return { message: null, condition: null };
  if (action === 'AUDIT' || action === 'CUSTOM')
    return notSent(`action ${action} is not supported: the policy is not enforced`);
  const rules = policy.rules.map((rule) => convertRule(rule, namespace));
  // A rule that asks for more than can be seen here allows nobody; one that denies does so by what can be seen.
  const kept = action === 'ALLOW' ? rules.filter(({ unsupported }) => unsupported.length === 0) : rules;
  const groups = kept.map(({ group }) => group);
  const unsupported = [...new Set(rules.flatMap((rule) => rule.unsupported))].sort();
  return {
    message: {
      name,
      namespace,
      scope: isSelective(policy) ? 'workload' : namespace === rootNamespace ? 'global' : 'namespace',
      action,
      groups,
      isDryRun: policy.isDryRun,
    },
    condition: accepted(action, unsupported, groups),
  };
}

/**
 * Whether workloads list the policy. One whose selector asks for nothing is for the whole namespace, as the same selector
 * of a PeerAuthentication is; istiod attaches it to nothing, which makes a policy that denies ineffective.
 */
export function isSelective({ selector }: AuthorizationPolicy): boolean {
  return selector !== null && Object.keys(selector).length > 0;
}

interface ConvertedRule {
  readonly group: Group;
  /** What was asked for and cannot be seen by agents of nodes, by its names in YAML. */
  readonly unsupported: readonly string[];
}

/** Clauses in the order: to, from, each of when. */
function convertRule({ to, from, when }: Rule, namespace: string): ConvertedRule {
  const unsupported: string[] = [];
  const clauses: Clause[] = [];
  for (const entries of [to, from]) {
    if (entries.length > 0) clauses.push(entries.map((entry) => convertEntry(entry, namespace, unsupported)));
  }
  for (const condition of when) clauses.push([convertWhen(condition, unsupported)]);
  return { group: clauses, unsupported };
}

function convertEntry(entry: Values, namespace: string, unsupported: string[]): Match {
  const match: { -readonly [Field in MatchField]?: Exclude<Match[Field], undefined> } = {};
  for (const [field, values] of Object.entries(entry) as [ValueField, readonly string[]][]) {
    switch (field) {
      case 'principals':
      case 'notPrincipals':
      case 'namespaces':
      case 'notNamespaces':
        match[field] = values;
        break;
      case 'serviceAccounts':
      case 'notServiceAccounts':
        match[field] = values.map((account) => (account.includes('/') ? account : `${namespace}/${account}`));
        break;
      case 'ipBlocks':
        match.sourceIps = values;
        break;
      case 'notIpBlocks':
        match.notSourceIps = values;
        break;
      case 'ports':
        match.destinationPorts = values.map(Number);
        break;
      case 'notPorts':
        match.notDestinationPorts = values.map(Number);
        break;
      default:
        unsupported.push(field);
    }
  }
  return match;
}

const WHEN_FIELDS = new Map<string, readonly [MatchField, MatchField]>([
  ['source.namespace', ['namespaces', 'notNamespaces']],
  ['source.principal', ['principals', 'notPrincipals']],
  ['source.ip', ['sourceIps', 'notSourceIps']],
  ['destination.ip', ['destinationIps', 'notDestinationIps']],
]);

function convertWhen({ key, values, notValues }: When, unsupported: string[]): Match {
  if (key === 'destination.port') {
    return given({ destinationPorts: values.map(Number), notDestinationPorts: notValues.map(Number) });
  }
  const fields = WHEN_FIELDS.get(key);
  if (fields === undefined) {
    unsupported.push(key);
    return {};
  }
  return given({ [fields[0]]: values, [fields[1]]: notValues });
}

function given(match: Match): Match {
  return Object.fromEntries(Object.entries(match).filter(([, values]) => values.length > 0)) as Match;
}

function notSent(message: string): ConvertedPolicy {
  return { message: null, condition: { type: ZTUNNEL_ACCEPTED, status: 'False', reason: 'UnsupportedValue', message } };
}

function accepted(action: 'ALLOW' | 'DENY', unsupported: readonly string[], groups: readonly Group[]): Condition {
  const condition = (reason: string, message: string): Condition => ({
    type: ZTUNNEL_ACCEPTED,
    status: 'True',
    reason,
    message,
  });
  if (unsupported.length === 0) return condition('Accepted', 'attached to ztunnel');
  const named = `ztunnel does not support HTTP attributes (found: ${unsupported.join(', ')})`;
  if (action === 'ALLOW')
    return condition(
      'UnsupportedValue',
      `${named}; rules with them are left out, which makes the policy more restrictive`,
    );
  if (groups.some(canMatch))
    return condition(
      'UnsupportedValue',
      `${named}; it is enforced without them, which makes the policy more restrictive`,
    );
  return condition('UnsupportedValue', `${named}; the policy has no effect: use a waypoint and a targetRef`);
}

/** An empty match never matches. */
function canMatch(group: Group): boolean {
  return group.every((clause) => clause.some((match) => Object.keys(match).length > 0));
}

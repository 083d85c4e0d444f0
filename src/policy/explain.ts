/** Why policies judge a connection as they do: every policy asked, rule by rule. Slow and complete; for people. */
import { formatIp } from '../netns/address.ts';
import type { PolicyKey } from '../state/types.ts';
import { findPolicyFault, type PolicyEntry } from './compile.ts';
import { FIELDS, textThatHolds } from './conditions.ts';
import { type Facts, factsOf } from './facts.ts';
import type { Policy, PolicyClause, PolicyConnection, PolicyMatch } from './types.ts';

export interface PolicyExplanation {
  readonly verdict: 'allow' | 'deny';
  /** One sentence. */
  readonly reason: string;
  /** The policy that decided, and its rule where one matched; null when none did. */
  readonly decidedBy: { readonly policy: PolicyKey; readonly rule: number | null } | null;
  /** In the order of evaluation: DENY, then ALLOW; dry-run ones, which decide nothing, before each. */
  readonly policies: readonly ExplainedPolicy[];
}

export interface ExplainedPolicy {
  readonly policy: PolicyKey;
  /** null: not known */
  readonly action: Policy['action'] | null;
  readonly scope: Policy['scope'] | null;
  readonly dryRun: boolean;
  readonly outcome: 'matched' | 'not-matched' | 'unknown' | 'unintelligible';
  /** The first rule that matched. */
  readonly rule: number | null;
  /** What is wrong with it, if anything is. */
  readonly fault: string | null;
  /** Of a policy that did not match: the clause at which each rule failed, for the first rules. */
  readonly failed: readonly FailedRule[];
  /** Rules that failed beyond those of `failed`. */
  readonly furtherFailed: number;
}

export interface FailedRule {
  readonly rule: number;
  readonly clause: number;
  /** For each match of that clause, the field that did not fit. */
  readonly matches: readonly FailedMatch[];
}

export interface FailedMatch {
  readonly match: number;
  /** null: the match names no field, and so never matches */
  readonly field: keyof PolicyMatch | null;
  /** The values that were asked for, or those of the unwanted ones that fit; the first ones if there are many. */
  readonly values: readonly unknown[];
  /** Values beyond those. */
  readonly furtherValues: number;
  /** What the connection has there; null for none */
  readonly has: string | number | null;
}

/** Rules, and values of a field, that an explanation lists: enough to see what is meant. */
const LISTED = 20;
const RULES_PER_SLICE = 64;

/**
 * Yields now and then, as there may be thousands.
 *
 * @param entries the policies that apply (spec §5.1); their order does not matter
 */
export function* explainPolicies(
  entries: readonly PolicyEntry[],
  connection: PolicyConnection,
): Generator<void, PolicyExplanation> {
  const facts = factsOf(connection);
  if (facts === null) {
    const reason = 'the address of the connection cannot be read';
    return { verdict: 'deny', reason, decidedBy: null, policies: [] };
  }
  const policies: ExplainedPolicy[] = [];
  for (const [key, policy] of entries) policies.push(yield* explainPolicy(key, policy, facts));
  policies.sort((a, b) => order(a) - order(b) || (a.policy < b.policy ? -1 : 1));
  return { ...decide(policies), policies };
}

function decide(policies: readonly ExplainedPolicy[]): Omit<PolicyExplanation, 'policies'> {
  const enforced = policies.filter(({ dryRun }) => !dryRun);
  const matched = (action: Policy['action']) =>
    enforced.find((policy) => policy.action === action && policy.outcome === 'matched');
  const denying = matched('Deny');
  if (denying !== undefined) {
    return { verdict: 'deny', reason: `explicitly denied by: ${denying.policy}`, decidedBy: decider(denying) };
  }
  const broken = enforced.find(({ fault }) => fault !== null);
  if (broken !== undefined) {
    return { verdict: 'deny', reason: `policy ${broken.policy} ${broken.fault}`, decidedBy: decider(broken) };
  }
  if (!enforced.some(({ action }) => action === 'Allow')) {
    return { verdict: 'allow', reason: 'no ALLOW policy applies, and no DENY policy matches', decidedBy: null };
  }
  const allowing = matched('Allow');
  if (allowing !== undefined) {
    return { verdict: 'allow', reason: `allowed by: ${allowing.policy}`, decidedBy: decider(allowing) };
  }
  return { verdict: 'deny', reason: 'allow policies exist, but none allowed', decidedBy: null };
}

function decider({ policy, rule }: ExplainedPolicy) {
  return { policy, rule };
}

function order({ action, dryRun, fault }: ExplainedPolicy): number {
  if (fault !== null && !dryRun) return 2;
  return (action === 'Deny' ? 0 : 3) + (dryRun ? 0 : 1);
}

function* explainPolicy(key: PolicyKey, policy: Policy | null, facts: Facts): Generator<void, ExplainedPolicy> {
  yield;
  const nothing = { policy: key, rule: null, fault: null, failed: [], furtherFailed: 0 };
  if (policy === null) {
    const fault = 'is listed for this workload, but not known: neither the control plane nor the local file has it';
    return { ...nothing, action: null, scope: null, dryRun: false, outcome: 'unknown', fault };
  }
  const { action, scope, dryRun } = policy;
  const meaningless = findPolicyFault(policy);
  if (meaningless !== null) {
    const fault = `cannot be understood: ${meaningless}`;
    return { ...nothing, action, scope, dryRun, outcome: 'unintelligible', fault };
  }
  const failed: FailedRule[] = [];
  for (const [rule, clauses] of policy.rules.entries()) {
    const clause = clauses.findIndex((matches) => !clauseHolds(matches, facts));
    if (clause < 0) return { ...nothing, action, scope, dryRun, outcome: 'matched', rule };
    const matches = clauses[clause]!.slice(0, LISTED).map((match, index) => explainMatch(match, index, facts));
    if (failed.length < LISTED) failed.push({ rule, clause, matches });
    if (rule % RULES_PER_SLICE === 0) yield;
  }
  const furtherFailed = policy.rules.length - failed.length;
  return { ...nothing, action, scope, dryRun, outcome: 'not-matched', failed, furtherFailed };
}

/** A clause without matches asks nothing. */
function clauseHolds(matches: PolicyClause, facts: Facts): boolean {
  return matches.length === 0 || matches.some((match) => namesAField(match) && failingField(match, facts) === null);
}

function explainMatch(match: PolicyMatch, index: number, facts: Facts): FailedMatch {
  const failing = failingField(match, facts);
  if (failing === null) return { match: index, field: null, values: [], furtherValues: 0, has: null };
  const { field, values } = failing;
  const furtherValues = Math.max(0, values.length - LISTED);
  return { match: index, field, values: values.slice(0, LISTED), furtherValues, has: factOf(field, facts) };
}

function namesAField(match: PolicyMatch): boolean {
  return FIELDS.some(({ wanted, unwanted }) => match[wanted].length + match[unwanted].length > 0);
}

interface FailingField {
  readonly field: keyof PolicyMatch;
  readonly values: readonly unknown[];
}

/** The first field that does not fit the connection, and the values that are to blame. */
function failingField(match: PolicyMatch, facts: Facts): FailingField | null {
  for (const { wanted, unwanted, condition } of FIELDS) {
    const fits = (value: unknown) => {
      const found = condition(value as never);
      return found !== null && textThatHolds(found.kind, found.length, facts) === found.text;
    };
    const [wantedValues, unwantedValues] = [match[wanted] as readonly unknown[], match[unwanted] as readonly unknown[]];
    if (wantedValues.length > 0 && !wantedValues.some(fits)) return { field: wanted, values: wantedValues };
    const unwelcome = unwantedValues.filter(fits);
    if (unwelcome.length > 0) return { field: unwanted, values: unwelcome };
  }
  return null;
}

function factOf(field: keyof PolicyMatch, facts: Facts): string | number | null {
  switch (field) {
    case 'principals':
    case 'notPrincipals':
      return facts.principal;
    case 'namespaces':
    case 'notNamespaces':
      return facts.namespace;
    case 'serviceAccounts':
    case 'notServiceAccounts':
      return facts.serviceAccount === null ? null : `${facts.namespace}/${facts.serviceAccount}`;
    case 'sourceIps':
    case 'notSourceIps':
      return formatIp(facts.source);
    case 'destinationIps':
    case 'notDestinationIps':
      return formatIp(facts.destination);
    default:
      return facts.port;
  }
}

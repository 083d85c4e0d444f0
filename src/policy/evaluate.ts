/**
 * Runs once per connection, and once per live connection when policies change. A miss of 10 000 matches by source
 * address costs a comparison of one or four integers each.
 */
import { type Cidr, cidrContains, type IpWords, parseIp } from '../netns/address.ts';
import type { PolicyKey } from '../state/types.ts';
import type {
  CompiledMatch,
  CompiledPolicies,
  CompiledPolicy,
  PolicyConnection,
  ServiceAccountMatch,
  StringMatch,
  Verdict,
} from './types.ts';

/** Something worth a log line; `message` is the incumbent's text (spec §5.2), `policy` null where none is concerned. */
export type PolicyObserver = (message: string, policy: PolicyKey | null) => void;

/**
 * Judges a connection (spec §5.2): a DENY that matches denies; then a policy that is not known or not understood denies;
 * then, when there is any ALLOW, one must match.
 *
 * @param observe told of each step and of what dry-run policies would do; without it dry-run policies are not looked at
 */
export function evaluate(
  policies: CompiledPolicies,
  connection: PolicyConnection,
  observe: PolicyObserver | null = null,
): Verdict {
  const facts = factsOf(connection);
  if (facts === null) return { kind: 'deny', reason: 'the address of the connection cannot be read', policy: null };

  if (observe !== null) {
    const match = firstMatch(policies.dryRunDeny, facts);
    if (match !== null) observe('dry-run: deny policy match', match);
  }
  const denied = firstMatch(policies.deny, facts);
  if (denied !== null) {
    observe?.('deny policy match', denied);
    return { kind: 'deny', reason: `explicitly denied by: ${denied}`, policy: denied };
  }
  const refusal = policies.refusals[0];
  if (refusal !== undefined) {
    observe?.('deny, a policy cannot be enforced', refusal.policy);
    return { kind: 'deny', reason: refusal.reason, policy: refusal.policy };
  }
  if (observe !== null) observeDryRunAllow(policies, facts, observe);
  if (policies.allow.length === 0) {
    observe?.('no allow policies, allow', null);
    return ALLOW;
  }
  const allowed = firstMatch(policies.allow, facts);
  if (allowed !== null) {
    observe?.('allow policy match', allowed);
    return ALLOW;
  }
  observe?.('no allow policies matched', null);
  return { kind: 'deny', reason: 'allow policies exist, but none allowed', policy: null };
}

const ALLOW: Verdict = { kind: 'allow' };

/** What matches are tested against. */
interface Facts {
  readonly source: IpWords;
  readonly destination: IpWords;
  readonly port: number;
  /** SPIFFE id without its scheme; null without identity */
  readonly principal: string | null;
  /** '' without identity */
  readonly namespace: string;
  /** null without identity */
  readonly serviceAccount: string | null;
}

function factsOf({ sourceIp, sourceIdentity, destinationIp, destinationPort }: PolicyConnection): Facts | null {
  const source = parseIp(sourceIp);
  const destination = parseIp(destinationIp);
  if (source === null || destination === null) return null;
  const principal = sourceIdentity?.startsWith(SCHEME) ? sourceIdentity.slice(SCHEME.length) : null;
  const parts = principal?.split('/') ?? [];
  const isIdentity = parts.length === 5 && parts[1] === 'ns' && parts[3] === 'sa';
  return {
    source,
    destination,
    port: destinationPort,
    principal,
    namespace: isIdentity ? parts[2]! : '',
    serviceAccount: isIdentity ? parts[4]! : null,
  };
}

const SCHEME = 'spiffe://';

function observeDryRunAllow(policies: CompiledPolicies, facts: Facts, observe: PolicyObserver): void {
  const match = firstMatch(policies.dryRunAllow, facts);
  if (match !== null) observe('dry-run: allow policy match', match);
  else if (policies.dryRunAllow.length > 0 && policies.allow.length === 0) {
    observe('dry-run: no allow policies match', null);
  }
}

function firstMatch(policies: readonly CompiledPolicy[], facts: Facts): PolicyKey | null {
  for (const { key, rules } of policies) {
    for (const clauses of rules) if (everyClauseMatches(clauses, facts)) return key;
  }
  return null;
}

function everyClauseMatches(clauses: readonly (readonly CompiledMatch[])[], facts: Facts): boolean {
  for (const matches of clauses) {
    // A clause without matches asks nothing.
    if (matches.length > 0 && !anyHolds(matches, facts)) return false;
  }
  return true;
}

function anyHolds(matches: readonly CompiledMatch[], facts: Facts): boolean {
  for (const match of matches) if (holds(match, facts)) return true;
  return false;
}

function holds(match: CompiledMatch, facts: Facts): boolean {
  return (
    passes(match.destinationPorts, match.notDestinationPorts, facts, hasPort) &&
    passes(match.sourceIps, match.notSourceIps, facts, holdsSource) &&
    passes(match.destinationIps, match.notDestinationIps, facts, holdsDestination) &&
    passes(match.principals, match.notPrincipals, facts, fitsPrincipal) &&
    passes(match.namespaces, match.notNamespaces, facts, fitsNamespace) &&
    passes(match.serviceAccounts, match.notServiceAccounts, facts, fitsAccount)
  );
}

/** One of the wanted values fits, and none of the unwanted. */
function passes<Value>(
  wanted: readonly Value[] | null,
  unwanted: readonly Value[] | null,
  facts: Facts,
  fits: (value: Value, facts: Facts) => boolean,
): boolean {
  return (wanted === null || anyFits(wanted, facts, fits)) && (unwanted === null || !anyFits(unwanted, facts, fits));
}

function anyFits<Value>(values: readonly Value[], facts: Facts, fits: (value: Value, facts: Facts) => boolean) {
  for (const value of values) if (fits(value, facts)) return true;
  return false;
}

const hasPort = (port: number, facts: Facts) => port === facts.port;
const holdsSource = (block: Cidr, facts: Facts) => cidrContains(block, facts.source);
const holdsDestination = (block: Cidr, facts: Facts) => cidrContains(block, facts.destination);
const fitsPrincipal = (match: StringMatch, facts: Facts) => facts.principal !== null && fits(match, facts.principal);
const fitsNamespace = (match: StringMatch, facts: Facts) => fits(match, facts.namespace);
const fitsAccount = ({ namespace, serviceAccount }: ServiceAccountMatch, facts: Facts) =>
  serviceAccount === facts.serviceAccount && namespace === facts.namespace;

function fits(match: StringMatch, text: string): boolean {
  if ('Exact' in match) return text === match.Exact;
  if ('Prefix' in match) return text.startsWith(match.Prefix);
  if ('Suffix' in match) return text.endsWith(match.Suffix);
  return text !== '';
}

import type { PolicyKey } from '../state/types.ts';
import { type Facts, factsOf } from './facts.ts';
import { firstMatch } from './first-match.ts';
import type { PolicyTable } from './table.ts';
import type { CompiledPolicies, PolicyConnection, Verdict } from './types.ts';

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
    const match = firstOf(policies.dryRunDeny, facts);
    if (match !== null) observe('dry-run: deny policy match', match);
  }
  const denied = firstOf(policies.deny, facts);
  if (denied !== null) {
    observe?.('deny policy match', denied);
    return { kind: 'deny', reason: `explicitly denied by: ${denied}`, policy: denied };
  }
  const { refusal } = policies;
  if (refusal !== null) {
    if (refusal.kind === 'awaited') return { kind: 'wait', reason: refusal.reason, policy: refusal.policy };
    observe?.('deny, a policy cannot be enforced', refusal.policy);
    return { kind: 'deny', reason: refusal.reason, policy: refusal.policy };
  }
  if (observe !== null) observeDryRunAllow(policies, facts, observe);
  if (policies.allow.length === 0) {
    observe?.('no allow policies, allow', null);
    return ALLOW;
  }
  const allowed = firstOf(policies.allow, facts);
  if (allowed !== null) {
    observe?.('allow policy match', allowed);
    return ALLOW;
  }
  observe?.('no allow policies matched', null);
  return { kind: 'deny', reason: 'allow policies exist, but none allowed', policy: null };
}

const ALLOW: Verdict = { kind: 'allow' };

function observeDryRunAllow(policies: CompiledPolicies, facts: Facts, observe: PolicyObserver): void {
  const match = firstOf(policies.dryRunAllow, facts);
  if (match !== null) observe('dry-run: allow policy match', match);
  else if (policies.dryRunAllow.length > 0 && policies.allow.length === 0) {
    observe('dry-run: no allow policies match', null);
  }
}

/** The first by key of the policies that match, so that verdicts name the same one everywhere. */
function firstOf(tables: readonly PolicyTable[], facts: Facts): PolicyKey | null {
  let first: PolicyKey | null = null;
  for (const table of tables) {
    const match = firstMatch(table, facts);
    if (match !== null && (first === null || match < first)) first = match;
  }
  return first;
}

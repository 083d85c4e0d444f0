import { evaluate, type PolicyObserver } from '../policy/evaluate.ts';
import type { CompiledPolicies, PolicyConnection } from '../policy/types.ts';
import type { Filter } from './chain.ts';
import type { ProxiedConnection } from './connection.ts';
import { CONTINUE, deny, PENDING, type Verdict } from './verdict.ts';

/** An inbound connection as policies see it. */
export interface JudgedConnection extends ProxiedConnection {
  policyFacts(): PolicyConnection;
  /** The policies of its pod; null while they are not known, which denies. */
  policies(): CompiledPolicies | null;
  /** Calls back once, when the policies of its pod are others. */
  whenPoliciesChange(done: () => void): void;
}

/** Authorization (spec §5). Asked again for live connections whenever the policies of their pod change. */
export function policy(observe: PolicyObserver | null): Filter<JudgedConnection> {
  return {
    name: 'policy',
    check(connection) {
      const verdict = judge(connection, observe);
      if (verdict === PENDING) connection.whenPoliciesChange(() => connection.proceed());
      return verdict;
    },
  };
}

export function isJudged(connection: ProxiedConnection): connection is JudgedConnection {
  return connection.listener !== 'outbound';
}

/** Pending while a policy that applies is awaited: nobody can say yet what it permits. */
export function judge(connection: JudgedConnection, observe: PolicyObserver | null): Verdict {
  const policies = connection.policies();
  if (policies === null)
    return deny('policies-unknown', 'connection closed due to policy rejection: workload not found');
  const verdict = evaluate(policies, connection.policyFacts(), observe);
  if (verdict.kind === 'allow') return CONTINUE;
  if (verdict.kind === 'wait') return PENDING;
  return deny('policy', `connection closed due to policy rejection: ${verdict.reason}`);
}

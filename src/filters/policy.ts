import { evaluate, type PolicyObserver } from '../policy/evaluate.ts';
import type { CompiledPolicies, PolicyConnection } from '../policy/types.ts';
import type { Filter } from './chain.ts';
import type { ProxiedConnection } from './connection.ts';
import { CONTINUE, deny, type Refusal } from './verdict.ts';

/** An inbound connection as policies see it. */
export interface JudgedConnection extends ProxiedConnection {
  policyFacts(): PolicyConnection;
  /** The policies of its pod; null while they are not known, which denies. */
  policies(): CompiledPolicies | null;
}

/** Authorization (spec §5). Asked again for live connections whenever the policies of their pod change. */
export function policy(observe: PolicyObserver | null): Filter<JudgedConnection> {
  return {
    name: 'policy',
    check: (connection) => judge(connection, observe) ?? CONTINUE,
  };
}

/** Null when the connection is allowed. */
export function judge(connection: JudgedConnection, observe: PolicyObserver | null): Refusal | null {
  const policies = connection.policies();
  if (policies === null)
    return deny('policies-unknown', 'connection closed due to policy rejection: workload not found');
  const verdict = evaluate(policies, connection.policyFacts(), observe);
  if (verdict.kind === 'allow') return null;
  return deny('policy', `connection closed due to policy rejection: ${verdict.reason}`);
}

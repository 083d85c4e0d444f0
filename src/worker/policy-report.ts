import type { Logger } from '../log/logger.ts';
import { POLICIES_NOT_ENFORCED } from '../metrics/families.ts';
import type { Registry } from '../metrics/registry.ts';
import type { PolicyScopes } from '../policy/scopes.ts';
import type { PolicyKey } from '../state/types.ts';

/** Tells operators of policies that cannot be enforced, because of which connections are denied. */
export class PolicyReport {
  readonly #policies: PolicyScopes;
  readonly #log: Logger;
  #told = new Map<PolicyKey, string>();

  constructor(policies: PolicyScopes, log: Logger, registry: Registry) {
    this.#policies = policies;
    this.#log = log;
    registry.computed(POLICIES_NOT_ENFORCED, () => {
      const counts = { unknown: 0, unintelligible: 0 };
      for (const { kind } of policies.refusals().values()) if (kind !== 'awaited') counts[kind]++;
      return Object.entries(counts).map(([kind, value]) => ({ labels: [kind], value }));
    });
  }

  /** Says what is new since the last time. */
  update(): void {
    const now = new Map([...this.#policies.refusals()].map(([key, { reason }]) => [key, reason]));
    for (const [policy, reason] of now) {
      if (this.#told.get(policy) === reason) continue;
      this.#log.warn('rbac', 'a policy cannot be enforced, so connections to its workloads are denied', {
        policy,
        reason,
      });
    }
    for (const policy of this.#told.keys()) {
      if (!now.has(policy)) this.#log.info('rbac', 'nothing is denied any more for want of a policy', { policy });
    }
    this.#told = now;
  }
}

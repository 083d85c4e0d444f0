import type { Policy } from '../policy/types.ts';
import type { PolicyKey } from './types.ts';

/** Policies by key, and the keys of those that apply to a namespace or to everything (spec §5.1). */
export class PolicyIndex {
  readonly #byKey = new Map<PolicyKey, Policy>();
  readonly #byNamespace = new Map<string, Set<PolicyKey>>();
  readonly #global = new Set<PolicyKey>();

  get(key: PolicyKey): Policy | null {
    return this.#byKey.get(key) ?? null;
  }

  entries(): IterableIterator<[PolicyKey, Policy]> {
    return this.#byKey.entries();
  }

  get global(): ReadonlySet<PolicyKey> {
    return this.#global;
  }

  ofNamespace(namespace: string): ReadonlySet<PolicyKey> {
    return this.#byNamespace.get(namespace) ?? NONE;
  }

  insert(key: PolicyKey, policy: Policy): void {
    this.remove(key);
    this.#byKey.set(key, policy);
    if (policy.scope === 'Global') this.#global.add(key);
    if (policy.scope === 'Namespace') {
      const keys = this.#byNamespace.get(policy.namespace) ?? new Set();
      this.#byNamespace.set(policy.namespace, keys.add(key));
    }
  }

  remove(key: PolicyKey): void {
    const policy = this.#byKey.get(key);
    if (policy === undefined) return;
    this.#byKey.delete(key);
    this.#global.delete(key);
    const keys = this.#byNamespace.get(policy.namespace);
    keys?.delete(key);
    if (keys?.size === 0) this.#byNamespace.delete(policy.namespace);
  }
}

const NONE: ReadonlySet<PolicyKey> = new Set();

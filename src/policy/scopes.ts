import { Patience } from '../patience.ts';
import { runInSlices } from '../slices.ts';
import type { MeshState } from '../state/mesh-state.ts';
import type { PolicyKey, Workload } from '../state/types.ts';
import { type CompiledScope, compileScope, joinScopes, type PolicyEntry } from './compile.ts';
import type { CompiledPolicies, Refusal } from './types.ts';

/**
 * How long a listed policy that is not known may be on its way, in ms: workloads and policies come in separate messages,
 * in either order. Nothing new is let in meanwhile, and nothing that was is cut.
 */
const AWAITED = 2000;

export interface PolicyScopesOptions {
  readonly mesh: MeshState;
  /** Policies of workloads may be others than `of` has said, without a change of the mesh state. */
  readonly onChange: () => void;
  readonly awaitedMs?: number;
  /** How the work is cut up. */
  readonly run?: typeof runInSlices;
}

/**
 * The compiled policies of the mesh, of namespaces and of lists that workloads have: each compiled once, whatever the
 * number of pods it applies to, when it is first asked for and whenever one of its policies changes. Many are compiled in
 * slices; what changes together comes into force together.
 */
export class PolicyScopes {
  readonly #mesh: MeshState;
  readonly #onChange: () => void;
  readonly #awaitedMs: number;
  readonly #run: typeof runInSlices;
  readonly #scopes = new Map<string, Scope>();
  /** Policies that are listed but not known, and the wait for each; null when it is over. */
  readonly #missing = new Map<PolicyKey, Patience | null>();
  #isCompiling = false;
  #replacedBytes = 0;

  constructor({ mesh, onChange, awaitedMs = AWAITED, run = runInSlices }: PolicyScopesOptions) {
    this.#mesh = mesh;
    this.#onChange = onChange;
    this.#awaitedMs = awaitedMs;
    this.#run = run;
  }

  /** What judges connections to a workload now. While it is being compiled for the first time, connections wait. */
  of(workload: Workload): CompiledPolicies {
    const scopes = this.#scopesOf(workload);
    this.#compile();
    const compiled = scopes.map(({ compiled }) => compiled).filter((scope) => scope !== null);
    const joined = joinScopes(compiled, (key) => this.#isAwaited(key));
    if (compiled.length === scopes.length || (joined.refusal !== null && joined.refusal.kind !== 'awaited'))
      return joined;
    return { ...joined, refusal: BEING_COMPILED };
  }

  /** Policies changed in the mesh state. When they are compiled later, `onChange` says so. */
  changed(keys: ReadonlySet<PolicyKey>): void {
    if (keys.size === 0) return;
    for (const scope of this.#scopes.values()) if (concerns(scope, keys)) scope.isStale = true;
    this.#compile();
  }

  /** Forgets the scopes that none of these workloads has. */
  retain(workloads: Iterable<Workload>): void {
    const used = new Set([...workloads].flatMap((workload) => this.#scopesOf(workload)));
    for (const [name, scope] of this.#scopes) {
      if (used.has(scope)) continue;
      this.#scopes.delete(name);
      this.#replacedBytes += sizeOf(scope.compiled);
    }
    this.#trackMissing();
  }

  /** Bytes of tables that are not in force any more, since this was last asked. */
  takeReplacedBytes(): number {
    const bytes = this.#replacedBytes;
    this.#replacedBytes = 0;
    return bytes;
  }

  /** Every policy that applies to a workload in question and cannot be enforced, by key. */
  refusals(): Map<PolicyKey, Refusal> {
    const refusals = new Map<PolicyKey, Refusal>();
    for (const { compiled } of this.#scopes.values()) {
      for (const refusal of compiled?.unintelligible ?? []) refusals.set(refusal.policy, refusal);
      for (const key of compiled?.missing ?? []) {
        if (this.#isAwaited(key)) continue;
        refusals.set(key, { kind: 'unknown', policy: key, reason: 'it is listed for a workload, but not known' });
      }
    }
    return refusals;
  }

  close(): void {
    for (const patience of this.#missing.values()) patience?.end();
  }

  #scopesOf({ namespace, authorizationPolicies }: Workload): Scope[] {
    const listed = [...new Set(authorizationPolicies)].sort();
    const scopes = [
      this.#scope('mesh', () => this.#mesh.globalPolicies()),
      this.#scope(`namespace ${namespace}`, () => this.#mesh.namespacePolicies(namespace)),
    ];
    if (listed.length > 0) scopes.push(this.#scope(JSON.stringify(listed), () => listed));
    return scopes;
  }

  #scope(name: string, keys: () => Iterable<PolicyKey>): Scope {
    let scope = this.#scopes.get(name);
    if (scope === undefined) {
      scope = { keys, entries: [], compiled: null, isStale: true };
      this.#scopes.set(name, scope);
    }
    return scope;
  }

  #compile(): void {
    if (this.#isCompiling) return;
    const stale = [...this.#scopes.values()].filter(({ isStale }) => isStale);
    if (stale.length === 0) return;
    this.#isCompiling = true;
    for (const scope of stale) {
      scope.isStale = false;
      scope.entries = [...scope.keys()].map((key) => [key, this.#mesh.policy(key)]);
    }
    this.#run(compileAll(stale), (compiled, isLater) => {
      this.#isCompiling = false;
      for (const [index, scope] of stale.entries()) {
        this.#replacedBytes += sizeOf(scope.compiled);
        scope.compiled = compiled[index]!;
      }
      this.#trackMissing();
      if (isLater) this.#onChange();
      // What changed meanwhile.
      this.#compile();
    });
  }

  #isAwaited(key: PolicyKey): boolean {
    return (this.#missing.get(key) ?? null) !== null;
  }

  /** Starts to wait for policies that are missing since now, and forgets those that are not any more. */
  #trackMissing(): void {
    const missing = new Set([...this.#scopes.values()].flatMap(({ compiled }) => compiled?.missing ?? []));
    for (const [key, patience] of this.#missing) {
      if (missing.has(key)) continue;
      patience?.end();
      this.#missing.delete(key);
    }
    for (const key of missing) {
      if (this.#missing.has(key)) continue;
      const expire = () => {
        this.#missing.set(key, null);
        this.#onChange();
      };
      this.#missing.set(key, new Patience(this.#awaitedMs, expire).unref());
    }
  }
}

interface Scope {
  readonly keys: () => Iterable<PolicyKey>;
  /** What it was, or is being, compiled from. */
  entries: readonly PolicyEntry[];
  compiled: CompiledScope | null;
  isStale: boolean;
}

const BEING_COMPILED: Refusal = {
  kind: 'awaited',
  policy: '',
  reason: 'the policies of this workload are being prepared',
};

function sizeOf(scope: CompiledScope | null): number {
  if (scope === null) return 0;
  const tables = [scope.dryRunDeny, scope.deny, scope.dryRunAllow, scope.allow];
  return tables.reduce((sum, table) => sum + (table === null ? 0 : table.words.byteLength + table.text.byteLength), 0);
}

function concerns(scope: Scope, changed: ReadonlySet<PolicyKey>): boolean {
  for (const [key] of scope.entries) if (changed.has(key)) return true;
  for (const key of scope.keys()) if (changed.has(key)) return true;
  return false;
}

function* compileAll(scopes: readonly Scope[]): Generator<void, CompiledScope[]> {
  const compiled: CompiledScope[] = [];
  for (const { entries } of scopes) compiled.push(yield* compileScope(entries));
  return compiled;
}

import type { MeshState } from '../state/mesh-state.ts';
import type { PolicyKey, Workload } from '../state/types.ts';
import { type PolicyTable, TableBuilder, Unintelligible } from './table.ts';
import type { CompiledPolicies, Policy, Refusal } from './types.ts';

/** Policies that apply together: those of the mesh, of a namespace, or those that workloads list. */
export interface CompiledScope {
  readonly dryRunDeny: PolicyTable | null;
  readonly deny: PolicyTable | null;
  readonly dryRunAllow: PolicyTable | null;
  readonly allow: PolicyTable | null;
  /** Sorted by key. */
  readonly unintelligible: readonly Refusal[];
  /** Keys of those that are not known, sorted. */
  readonly missing: readonly PolicyKey[];
}

/** A policy by its key; null when it is not known. */
export type PolicyEntry = readonly [key: PolicyKey, policy: Policy | null];

/**
 * Prepares the policies of a scope for evaluation. Yields now and then, as there may be thousands.
 *
 * Unlike the incumbent, which skips what it does not know or understand, both are kept in mind, as they refuse
 * connections. A dry-run policy enforces nothing, broken or not.
 */
export function* compileScope(entries: readonly PolicyEntry[]): Generator<void, CompiledScope> {
  const builders = {
    dryRunDeny: new TableBuilder(),
    deny: new TableBuilder(),
    dryRunAllow: new TableBuilder(),
    allow: new TableBuilder(),
  };
  const unintelligible: Refusal[] = [];
  const missing: PolicyKey[] = [];
  for (const [key, policy] of [...entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
    yield;
    if (policy === null) {
      missing.push(key);
      continue;
    }
    try {
      check(policy);
      yield* builders[groupOf(policy)].add(key, policy);
    } catch (error) {
      if (!(error instanceof Unintelligible)) throw error;
      const reason = `policy ${key} cannot be understood: ${error.message}`;
      if (!policy.dryRun) unintelligible.push({ kind: 'unintelligible', policy: key, reason });
    }
  }
  return {
    dryRunDeny: yield* tableOf(builders.dryRunDeny),
    deny: yield* tableOf(builders.deny),
    dryRunAllow: yield* tableOf(builders.dryRunAllow),
    allow: yield* tableOf(builders.allow),
    unintelligible,
    missing,
  };
}

/** @param isAwaited whether a policy that is not known may still be on its way */
export function joinScopes(
  scopes: readonly CompiledScope[],
  isAwaited: (key: PolicyKey) => boolean = () => false,
): CompiledPolicies {
  const tables = (group: Group) => scopes.map((scope) => scope[group]).filter((table) => table !== null);
  return {
    refusal: refusalOf(scopes, isAwaited),
    dryRunDeny: tables('dryRunDeny'),
    deny: tables('deny'),
    dryRunAllow: tables('dryRunAllow'),
    allow: tables('allow'),
  };
}

/** What judges connections to a workload, at once: for a look from outside the data plane. */
export function compilePolicies(mesh: MeshState, workload: Workload): CompiledPolicies {
  const entries = [...policyKeysOf(mesh, workload)].map((key): PolicyEntry => [key, mesh.policy(key)]);
  return joinScopes([finish(compileScope(entries))]);
}

/** The policies that apply to a workload: of the mesh, of its namespace, and those it lists (spec §5.1). */
export function policyKeysOf(mesh: MeshState, workload: Workload): Set<PolicyKey> {
  return new Set([
    ...mesh.globalPolicies(),
    ...mesh.namespacePolicies(workload.namespace),
    ...workload.authorizationPolicies,
  ]);
}

/** Why a policy cannot be compiled, or null when it can. Sources use it to report a policy before it is in force. */
export function findPolicyFault(policy: Policy): string | null {
  try {
    check(policy);
    finish(new TableBuilder().add('', policy));
    return null;
  } catch (error) {
    if (error instanceof Unintelligible) return error.message;
    throw error;
  }
}

type Group = 'dryRunDeny' | 'deny' | 'dryRunAllow' | 'allow';

function groupOf({ action, dryRun }: Policy): Group {
  if (action === 'Deny') return dryRun ? 'dryRunDeny' : 'deny';
  return dryRun ? 'dryRunAllow' : 'allow';
}

function check({ unintelligible, action }: Policy): void {
  if (unintelligible !== null) throw new Unintelligible(unintelligible);
  if (action !== 'Allow' && action !== 'Deny') throw new Unintelligible(`the action is ${JSON.stringify(action)}`);
}

function* tableOf(builder: TableBuilder): Generator<void, PolicyTable | null> {
  return builder.isEmpty ? null : yield* builder.finish();
}

/** One that will not change by waiting first; the first by key among equals. */
function refusalOf(scopes: readonly CompiledScope[], isAwaited: (key: PolicyKey) => boolean): Refusal | null {
  const refusals = scopes.flatMap(({ unintelligible, missing }) => [
    ...unintelligible,
    ...missing.map((key) => missingPolicy(key, isAwaited(key))),
  ]);
  const rank = ({ kind, policy }: Refusal) => `${kind === 'awaited' ? 1 : 0}${policy}`;
  return refusals.reduce<Refusal | null>(
    (first, refusal) => (first === null || rank(refusal) < rank(first) ? refusal : first),
    null,
  );
}

function missingPolicy(key: PolicyKey, isAwaited: boolean): Refusal {
  return {
    kind: isAwaited ? 'awaited' : 'unknown',
    policy: key,
    reason: `unknown policy ${key} is listed for this workload`,
  };
}

function finish<T>(work: Generator<void, T>): T {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

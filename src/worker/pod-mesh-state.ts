import { parseSpiffeId } from '../identity/spiffe.ts';
import type { PolicyScopes } from '../policy/scopes.ts';
import type { CompiledPolicies } from '../policy/types.ts';
import type { MeshState } from '../state/mesh-state.ts';
import { identityOf } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';

/** What the mesh state says of an enrolled pod. Plain data, structured-clonable. */
export interface PodMeshState {
  /** SPIFFE id of its workload; null while the workload is not known, or has none that is valid. */
  readonly identity: string | null;
  /** What judges its inbound connections; null while the workload is not known, which denies new ones. */
  readonly policies: CompiledPolicies | null;
}

const UNKNOWN_POD_STATE: PodMeshState = { identity: null, policies: null };

export function podMeshState(mesh: MeshState, policies: PolicyScopes, pod: PodInfo): PodMeshState {
  const workload = mesh.localWorkload(pod);
  if (workload === null) return UNKNOWN_POD_STATE;
  return { identity: validIdentity(identityOf(workload)), policies: policies.of(workload) };
}

/** Whether a pod need not be told. Tables are compared as such: a table is never changed, and made once. */
export function isSameState(a: PodMeshState, b: PodMeshState): boolean {
  return a.identity === b.identity && (a.policies === b.policies || hasSamePolicies(a.policies, b.policies));
}

function hasSamePolicies(a: CompiledPolicies | null, b: CompiledPolicies | null): boolean {
  if (a === null || b === null) return false;
  if (a.refusal?.kind !== b.refusal?.kind || a.refusal?.reason !== b.refusal?.reason) return false;
  return GROUPS.every(
    (group) => a[group].length === b[group].length && a[group].every((table, index) => table === b[group][index]),
  );
}

const GROUPS = ['dryRunDeny', 'deny', 'dryRunAllow', 'allow'] as const;

// The state takes what its source says, an empty trust domain too; such a pod is not served by HBONE, the others are.
function validIdentity(identity: string): string | null {
  try {
    parseSpiffeId(identity);
    return identity;
  } catch {
    return null;
  }
}

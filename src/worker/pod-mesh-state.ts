import { parseSpiffeId } from '../identity/spiffe.ts';
import { compilePolicies } from '../policy/compile.ts';
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

export const UNKNOWN_POD_STATE: PodMeshState = { identity: null, policies: null };

export function podMeshState(mesh: MeshState, pod: PodInfo): PodMeshState {
  const workload = mesh.localWorkload(pod);
  if (workload === null) return UNKNOWN_POD_STATE;
  return { identity: validIdentity(identityOf(workload)), policies: compilePolicies(mesh, workload) };
}

// The state takes what its source says, an empty trust domain too; such a pod is not served by HBONE, the others are.
function validIdentity(identity: string): string | null {
  try {
    parseSpiffeId(identity);
    return identity;
  } catch {
    return null;
  }
}

import { fields, metadataOf, text } from '../../kube/object.ts';
import type { Kind } from '../kinds.ts';
import { AUTHORIZATION_POLICIES } from './authorization-policy.ts';
import { MESH_KINDS } from './kinds.ts';
import { PEER_AUTHENTICATIONS } from './peer-authentication.ts';
import { SERVICE_ENTRIES } from './service-entry.ts';
import { WORKLOAD_ENTRIES } from './workload-entry.ts';

/** Kinds whose objects may be for the control plane of one revision. */
const DIVIDED: ReadonlySet<unknown> = new Set([
  AUTHORIZATION_POLICIES,
  PEER_AUTHENTICATIONS,
  SERVICE_ENTRIES,
  WORKLOAD_ENTRIES,
]);

/**
 * All kinds of the mesh; objects that are labelled for another revision are not read by them, not even to be judged.
 * @param revision "" for all
 */
export function kindsOfRevision(revision: string): readonly Kind[] {
  if (revision === '') return MESH_KINDS;
  return MESH_KINDS.map((kind) => {
    if (!DIVIDED.has(kind)) return kind;
    return { ...kind, read: (object) => (isOfRevision(object, revision) ? kind.read(object) : null) };
  });
}

/** Whether an object is for the control plane of that revision: labelled for it, or for none. @param revision "" for all */
export function isOfRevision(object: unknown, revision: string): boolean {
  const label = text(fields(metadataOf(object).labels)['istio.io/rev']);
  return revision === '' || label === '' || label === revision;
}

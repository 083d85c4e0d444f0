import { isNotFound, type KubeApi } from '../../kube/api.ts';
import { fields, text } from '../../kube/object.ts';
import { isOfRevision } from '../objects/of-revision.ts';
import { collectionPath, keyOf } from '../sources/of-kind.ts';
import { ACCEPTED, JUDGED_KINDS, retraction, type StatusWrite } from './writes.ts';

/**
 * Takes back what an earlier process said of objects that are good by now: it may have ended before it saw the correction.
 * @param rejected `kind namespace/name` of those that are still rejected
 * @param revision that of this control plane, which leaves alone what others say of theirs; "" for all
 */
export async function staleVerdicts(
  api: Pick<KubeApi, 'get'>,
  rejected: ReadonlySet<string>,
  revision: string,
): Promise<StatusWrite[]> {
  const found: StatusWrite[] = [];
  for (const kind of JUDGED_KINDS) {
    let next = '';
    do {
      const query = new URLSearchParams({ limit: '500', ...(next === '' ? {} : { continue: next }) });
      const page = await api.get(`${collectionPath(kind)}?${query}`).catch((error: unknown) => {
        // The cluster does not have this kind.
        if (isNotFound(error)) return {};
        throw error;
      });
      const { items, metadata } = fields(page);
      for (const object of Array.isArray(items) ? items : []) {
        const key = keyOf(kind, object);
        const isStale = hasVerdict(object) && isOfRevision(object, revision) && !rejected.has(`${kind.kind} ${key}`);
        const write = isStale ? retraction(kind, key) : null;
        if (write !== null) found.push(write);
      }
      next = text(fields(metadata).continue);
    } while (next !== '');
  }
  return found;
}

function hasVerdict(object: unknown): boolean {
  const { conditions } = fields(fields(object).status);
  return Array.isArray(conditions) && conditions.some((condition) => fields(condition).type === ACCEPTED);
}

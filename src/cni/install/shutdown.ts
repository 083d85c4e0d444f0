import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../errors.ts';
import { type KubeApi, KubeError } from '../../kube/api.ts';
import { fields, text } from '../../kube/object.ts';

/** Why the node agent ends, as far as it can be told. */
export type Ending =
  | { readonly kind: 'replaced'; readonly reason: string }
  | { readonly kind: 'uninstalled'; readonly reason: string };

/**
 * Tells whether this node is to go on with another node agent (an upgrade, a reboot) or without (spec node-03 §3.7): by
 * its DaemonSet, and by whether that still wants this node. An API server that is not there, or has too much to do, is
 * asked again. When it cannot be told, nothing is uninstalled: pods that wait are better than pods without the mesh.
 * @param patienceMs for how long it is asked again, in ms; but once at least, because a first request in a connection that
 * has gone dead takes all of it
 */
export async function whyEnding(api: Pick<KubeApi, 'get'>, place: Place, patienceMs = 15_000): Promise<Ending> {
  const deadline = performance.now() + patienceMs;
  for (let asked = 1; ; asked++) {
    try {
      return await askWhy(api, place);
    } catch (error) {
      if (asked > 1 && performance.now() + PAUSE_MS > deadline) {
        return { kind: 'replaced', reason: `the API server does not tell: ${messageOf(error)}` };
      }
      await delay(PAUSE_MS);
    }
  }
}

interface Place {
  readonly namespace: string;
  readonly daemonSet: string;
  readonly node: string;
}

const PAUSE_MS = 500;

/** @throws what may be otherwise when asked again */
async function askWhy(api: Pick<KubeApi, 'get'>, { namespace, daemonSet, node }: Place): Promise<Ending> {
  try {
    const object = fields(await api.get(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${daemonSet}`));
    if (fields(object.metadata).deletionTimestamp !== undefined) {
      return { kind: 'uninstalled', reason: 'its DaemonSet is being deleted' };
    }
    const template = fields(fields(fields(object.spec).template).spec);
    if (!hasNodeConstraint(template)) return { kind: 'replaced', reason: 'its DaemonSet exists' };
    const wanted = wantsNode(template, await api.get(`/api/v1/nodes/${node}`));
    return wanted
      ? { kind: 'replaced', reason: 'its DaemonSet exists' }
      : { kind: 'uninstalled', reason: 'its DaemonSet no longer wants this node' };
  } catch (error) {
    const status = error instanceof KubeError ? error.status : 0;
    if (status === 404) return { kind: 'uninstalled', reason: 'its DaemonSet is gone' };
    // The ServiceAccount or its rights were deleted, which happens with the rest of an uninstall.
    if (status === 401 || status === 403) return { kind: 'uninstalled', reason: 'its rights are gone' };
    if (status === 0 || status === 429 || status >= 500) throw error;
    return { kind: 'replaced', reason: `the API server does not tell: ${messageOf(error)}` };
  }
}

function hasNodeConstraint(template: Readonly<Record<string, unknown>>): boolean {
  return template.nodeSelector !== undefined || requiredTerms(template) !== null;
}

/** Whether a pod template may run on a node: nodeSelector and required node affinity. */
export function wantsNode(template: Readonly<Record<string, unknown>>, node: unknown): boolean {
  const meta = fields(fields(node).metadata);
  const labels = fields(meta.labels);
  const selected = Object.entries(fields(template.nodeSelector)).every(([key, value]) => labels[key] === value);
  const terms = requiredTerms(template);
  if (!selected || terms === null) return selected;
  // Terms are alternatives; a term that asks nothing matches nothing.
  return terms.some((term) => {
    const { matchExpressions, matchFields } = fields(term);
    const expressions = Array.isArray(matchExpressions) ? matchExpressions : [];
    const byField = Array.isArray(matchFields) ? matchFields : [];
    if (expressions.length + byField.length === 0) return false;
    return (
      expressions.every((given) =>
        holds(
          given,
          (key) => text(labels[key]),
          (key) => Object.hasOwn(labels, key),
        ),
      ) &&
      byField.every((given) =>
        holds(
          given,
          () => text(meta.name),
          (key) => key === 'metadata.name',
        ),
      )
    );
  });
}

function requiredTerms(template: Readonly<Record<string, unknown>>): unknown[] | null {
  const affinity = fields(fields(template.affinity).nodeAffinity);
  const terms = fields(affinity.requiredDuringSchedulingIgnoredDuringExecution).nodeSelectorTerms;
  return Array.isArray(terms) ? terms : null;
}

function holds(given: unknown, labelOf: (key: string) => string, has: (key: string) => boolean): boolean {
  const { key, operator, values } = fields(given);
  const name = text(key);
  const wanted = Array.isArray(values) ? values.map(text) : [];
  switch (operator) {
    case 'In':
      return has(name) && wanted.includes(labelOf(name));
    case 'NotIn':
      return !has(name) || !wanted.includes(labelOf(name));
    case 'Exists':
      return has(name);
    case 'DoesNotExist':
      return !has(name);
    case 'Gt':
      return has(name) && Number(labelOf(name)) > Number(wanted[0]);
    case 'Lt':
      return has(name) && Number(labelOf(name)) < Number(wanted[0]);
    default:
      // Unknown means that this node may be wanted.
      return true;
  }
}

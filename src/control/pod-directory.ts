import type { PodDirectory } from './ca/node-authorizer.ts';
import type { ObjectChange } from './kinds.ts';
import { PODS, type Pod } from './objects/pod.ts';

/** Follows the pods of the cluster for the node authorizer: where each runs, and as whom. */
export interface PodDirectoryBook extends PodDirectory {
  apply(changes: readonly ObjectChange[]): void;
  size(): number;
}

export function createPodDirectory(): PodDirectoryBook {
  const pods = new Map<string, Pod>();
  /** Pods on each node by `namespace/service account`. */
  const accounts = new Map<string, Map<string, number>>();

  function count({ node, namespace, serviceAccount }: Pod, by: 1 | -1): void {
    if (node === '') return;
    const account = `${namespace}/${serviceAccount}`;
    const onNode = accounts.get(node) ?? new Map<string, number>();
    const now = (onNode.get(account) ?? 0) + by;
    if (now > 0) onNode.set(account, now);
    else onNode.delete(account);
    if (onNode.size > 0) accounts.set(node, onNode);
    else accounts.delete(node);
  }

  return {
    apply(changes) {
      for (const { kind, key, after } of changes) {
        if (kind !== PODS) continue;
        const before = pods.get(key);
        const pod = after as Pod | null;
        if (before !== undefined) count(before, -1);
        if (pod === null) {
          pods.delete(key);
        } else {
          pods.set(key, pod);
          count(pod, 1);
        }
      }
    },
    size: () => pods.size,
    pod: (namespace, name) => pods.get(`${namespace}/${name}`) ?? null,
    runsOn: (node, namespace, serviceAccount) => accounts.get(node)?.has(`${namespace}/${serviceAccount}`) ?? false,
  };
}

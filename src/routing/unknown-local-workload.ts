import type { PodInfo } from '../zds/types.ts';

/** The rejection of either direction when the pod is not in the mesh state. */
export function unknownLocalWorkload({ serviceAccount, namespace, name }: PodInfo): {
  readonly tag: 'unknown-local-workload';
  readonly message: string;
} {
  return {
    tag: 'unknown-local-workload',
    message: `failed to fetch information about local workload: ${serviceAccount}.${namespace} (${name})`,
  };
}

import type { Config } from '../config/config.ts';
import type { Node } from './delta.ts';

/** Who this agent is to the control plane (spec §9.1). */
export function nodeOf(
  config: Pick<
    Config,
    'podName' | 'podNamespace' | 'instanceIp' | 'localNode' | 'clusterId' | 'metadata' | 'metadataJson'
  >,
): Node {
  const { podName, podNamespace, instanceIp } = config;
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: {
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: instanceIp,
      NODE_NAME: config.localNode ?? '',
      CLUSTER_ID: config.clusterId,
      ...config.metadata,
      ...config.metadataJson,
    },
  };
}

import type { Setting } from '../setting.ts';
import { text } from '../values.ts';

export const meshSettings = {
  network: {
    env: 'NETWORK',
    type: text,
    default: null,
    otherwise: 'empty',
    meaning: 'Network of this node.',
    why: 'Workloads of another network are reached through its gateway.',
  },
  localNode: {
    env: 'NODE_NAME',
    type: text,
    default: null,
    otherwise: 'none',
    meaning: 'Name of this node.',
    why: 'Tells which workloads are local, to fetch their certificates before they are needed.',
  },
  clusterId: {
    env: 'CLUSTER_ID',
    overriddenBy: 'ISTIO_META_CLUSTER_ID',
    type: text,
    default: 'Kubernetes',
    meaning: 'Id of this cluster.',
    why: 'The control plane serves several clusters and tells them apart by it.',
  },
  proxyConfig: {
    env: 'PROXY_CONFIG',
    type: text,
    default: null,
    otherwise: '`defaultConfig` of `./etc/istio/config/mesh` when that file exists',
    meaning:
      'Proxy configuration as YAML: `discoveryAddress`, `proxyAdminPort`, `statsPort`, `concurrency`, `proxyMetadata`. Merged over the file’s, key by key.',
    why: 'How the mesh configuration reaches proxies.',
    input: true,
  },
  kubernetesServiceHost: {
    env: 'KUBERNETES_SERVICE_HOST',
    type: text,
    default: null,
    otherwise: 'not in Kubernetes',
    meaning: 'Set by Kubernetes in every pod.',
    why: 'Chooses the default address of the control plane.',
    input: true,
  },
} as const satisfies Record<string, Setting>;

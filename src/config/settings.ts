import { agentSettings } from './settings/agent.ts';
import { balancingSettings } from './settings/balancing.ts';
import { controlPlaneSettings } from './settings/control-plane.ts';
import { identitySettings } from './settings/identity.ts';
import { logsSettings } from './settings/logs.ts';
import { meshSettings } from './settings/mesh.ts';
import { podsSettings } from './settings/pods.ts';
import { threadsSettings } from './settings/threads.ts';
import { tunnelsSettings } from './settings/tunnels.ts';

/** The table, in the chapters of docs/configuration.md. */
export const chapters = {
  Agent: agentSettings,
  'Pods and sockets': podsSettings,
  Tunnels: tunnelsSettings,
  'Load balancing': balancingSettings,
  Identity: identitySettings,
  'Control plane': controlPlaneSettings,
  'Node and mesh': meshSettings,
  Threads: threadsSettings,
  Logs: logsSettings,
} as const;

/** Every setting that is one variable. The key is the property of `Config`, or what a property is derived from. */
export const settings = {
  ...agentSettings,
  ...podsSettings,
  ...tunnelsSettings,
  ...balancingSettings,
  ...identitySettings,
  ...controlPlaneSettings,
  ...meshSettings,
  ...threadsSettings,
  ...logsSettings,
} as const;

/**
 * Header names, less those that HTTP/2 forbids (RFC 9113 §8.2.2) or the call itself sets, and those of gRPC for binary
 * values.
 */
const HEADER_NAME =
  /^(?!(?:connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|te|host|content-type|content-length|grpc-.*|.*-bin)$)[\w.-]+$/i;

/** Settings that are many variables with one prefix; what follows the prefix is the key. */
export const families = {
  xdsHeaders: {
    chapter: 'Control plane',
    env: 'XDS_HEADER_',
    accepts: 'any text',
    key: HEADER_NAME,
    meaning: 'Further headers of requests to `XDS_ADDRESS`; the name follows the prefix.',
    why: 'For gateways before the control plane. Values are never printed.',
  },
  caHeaders: {
    chapter: 'Control plane',
    env: 'CA_HEADER_',
    accepts: 'any text',
    key: HEADER_NAME,
    meaning: 'Further headers of requests to `CA_ADDRESS`; the name follows the prefix.',
    why: 'For gateways before the control plane. Values are never printed.',
  },
  metadata: {
    chapter: 'Node and mesh',
    env: 'ISTIO_META_',
    accepts: 'any text',
    key: /^.+$/,
    meaning: 'Metadata of this agent, sent to the control plane. Wins over `proxyMetadata` of the proxy configuration.',
    why: '`ISTIO_META_ISTIO_VERSION` is also the version in the `istio_build` metric.',
  },
  metadataJson: {
    chapter: 'Node and mesh',
    env: 'ISTIO_METAJSON_',
    accepts: 'a JSON value',
    key: /^.+$/,
    meaning: 'The same with a JSON value.',
    why: 'For values that are not text.',
  },
} as const;

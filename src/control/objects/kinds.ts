import type { Kind } from '../kinds.ts';
import { AUTHORIZATION_POLICIES } from './authorization-policy.ts';
import { ENDPOINT_SLICES } from './endpoint-slice.ts';
import { GATEWAY_CLASSES, GATEWAYS } from './gateway.ts';
import { NAMESPACES } from './namespace.ts';
import { NODES } from './node.ts';
import { PEER_AUTHENTICATIONS } from './peer-authentication.ts';
import { PODS } from './pod.ts';
import { SERVICES } from './service.ts';
import { SERVICE_ENTRIES } from './service-entry.ts';
import { WORKLOAD_ENTRIES } from './workload-entry.ts';

/** What mesh state is made of (control-01 §1). */
export const MESH_KINDS: readonly Kind[] = [
  NAMESPACES,
  NODES,
  GATEWAY_CLASSES,
  GATEWAYS,
  AUTHORIZATION_POLICIES,
  PEER_AUTHENTICATIONS,
  SERVICES,
  SERVICE_ENTRIES,
  WORKLOAD_ENTRIES,
  ENDPOINT_SLICES,
  PODS,
];

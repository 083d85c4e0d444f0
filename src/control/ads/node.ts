/** Which node proxy a stream belongs to, by its own account and by that of whoever vouches for it (node-09 §9.1, §9.2). */
import type { Caller } from '../authentication.ts';
import { refusal } from '../grpc/service.ts';
import type { SentNode } from './request.ts';

export interface ClientNode {
  /** `ztunnel~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>` */
  readonly id: string;
  readonly namespace: string;
  readonly pod: string;
  /** Name of the Kubernetes node; '' when it is not said. */
  readonly node: string;
  /** What the proxy says of its own version; '' when it is not said. */
  readonly version: string;
}

/** @throws CulvertError INVALID_ARGUMENT, or PERMISSION_DENIED for who is not what the node says */
export function identifyNode(sent: SentNode | null, caller: Caller): ClientNode {
  if (sent === null || sent.id === '') throw refusal('INVALID_ARGUMENT', 'missing node information');
  const { id, metadata } = sent;
  const [type, ip, name, domain, ...more] = id.split('~');
  if (!type || !ip || !name || !domain || more.length > 0 || id.length > MAX_ID) {
    throw refusal(
      'INVALID_ARGUMENT',
      `missing or invalid parts in the node id ${JSON.stringify(id.slice(0, MAX_ID))}: type~ip~pod.namespace~domain is expected`,
    );
  }
  const ofDomain = domain.split('.')[0]!;
  const namespace = metadata.get('NAMESPACE') || ofDomain;
  const account = metadata.get('SERVICE_ACCOUNT') || null;
  const claims = `${namespace}/${account ?? '*'}`;
  const isOther = (claimed: string) => claimed !== '' && claimed !== caller.namespace;
  if (isOther(namespace) || isOther(ofDomain) || (account !== null && account !== caller.serviceAccount)) {
    throw refusal(
      'PERMISSION_DENIED',
      `authorization failed: the identity ${caller.namespace}/${caller.serviceAccount} is not that of the node, ${claims}`,
    );
  }
  const dot = name.lastIndexOf('.');
  return {
    id,
    namespace,
    pod: dot < 0 ? name : name.slice(0, dot),
    node: (metadata.get('NODE_NAME') ?? '').slice(0, MAX_NAME),
    version: (metadata.get('ISTIO_VERSION') ?? '').slice(0, MAX_VERSION),
  };
}

/** Names of pods and namespaces have up to 253 and 63 characters. */
const MAX_ID = 1000;
const MAX_NAME = 253;
const MAX_VERSION = 64;

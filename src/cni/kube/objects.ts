import { fields, type Labels, labels, text } from '../../kube/object.ts';
import { canonicalIp } from '../../netns/address.ts';

/** What the node agent keeps of a Pod object. */
export interface PodObject {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  readonly labels: Labels;
  /** Only those of KEPT_ANNOTATIONS. */
  readonly annotations: Labels;
  readonly hostNetwork: boolean;
  /** Failed or Succeeded. */
  readonly terminal: boolean;
  /** The uid that the kubelet knows a static pod by; null for any other. */
  readonly staticUid: string | null;
  /** Canonical; empty while the API does not know them. */
  readonly ips: readonly string[];
}

export interface NamespaceObject {
  readonly name: string;
  readonly labels: Labels;
}

export const REDIRECTION = 'ambient.istio.io/redirection';
export const BYPASS_INBOUND = 'ambient.istio.io/bypass-inbound-capture';
export const DNS_CAPTURE = 'ambient.istio.io/dns-capture';
export const VIRTUAL_INTERFACES = 'istio.io/reroute-virtual-interfaces';
export const SIDECAR_STATUS = 'sidecar.istio.io/status';
const KEPT_ANNOTATIONS = [REDIRECTION, BYPASS_INBOUND, DNS_CAPTURE, VIRTUAL_INTERFACES, SIDECAR_STATUS];

/** Null when the object lacks what every Pod has. */
export function readPod(object: unknown): PodObject | null {
  const { metadata, spec, status } = fields(object);
  const meta = fields(metadata);
  const uid = text(meta.uid);
  const name = text(meta.name);
  const namespace = text(meta.namespace);
  if (uid === '' || name === '' || namespace === '') return null;
  const { serviceAccountName, hostNetwork } = fields(spec);
  const { phase, podIP, podIPs } = fields(status);
  const listed = Array.isArray(podIPs) ? podIPs.map((entry) => text(fields(entry).ip)) : [];
  const given = listed.length > 0 ? listed : [text(podIP)];
  const annotations = labels(meta.annotations);
  return {
    uid,
    name,
    namespace,
    serviceAccount: text(serviceAccountName) || 'default',
    labels: labels(meta.labels),
    annotations: Object.fromEntries(
      KEPT_ANNOTATIONS.filter((key) => Object.hasOwn(annotations, key)).map((key) => [key, annotations[key]!]),
    ),
    hostNetwork: hostNetwork === true,
    staticUid: annotations['kubernetes.io/config.hash'] ?? null,
    terminal: phase === 'Failed' || phase === 'Succeeded',
    ips: given.flatMap((ip) => canonicalIp(ip) ?? []),
  };
}

export function readNamespace(object: unknown): NamespaceObject | null {
  const meta = fields(fields(object).metadata);
  const name = text(meta.name);
  return name === '' ? null : { name, labels: labels(meta.labels) };
}

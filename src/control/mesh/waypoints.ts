/** Waypoints, and which of them stands before a service or a workload (control-01 §5). */
import { matchesLabels } from '../../kube/label-selector.ts';
import { canonicalIp, parsePort } from '../../netns/address.ts';
import type { AllowedNamespaces, Gateway, GatewayClass } from '../objects/gateway.ts';
import { keyOf, type Labels } from '../objects/metadata.ts';
import type { Namespace } from '../objects/namespace.ts';
import type { ApplicationTunnel, GatewayAddress } from './messages.ts';

export interface Waypoint {
  /** `namespace/name` of its Gateway. */
  readonly key: string;
  readonly namespace: string;
  readonly address: GatewayAddress;
  /** `service`, `workload`, `all` or `none`; anything else suits nothing. */
  readonly trafficType: string;
  /** How it wants connections that a node's agent has taken out of their tunnels. */
  readonly inboundBinding: ApplicationTunnel | null;
  readonly allowed: AllowedNamespaces;
}

/** Whom a waypoint is looked for. */
export interface Attachable {
  readonly kind: 'service' | 'workload';
  readonly namespace: string;
  readonly labels: Labels;
  /** Whether other namespaces do not see it. */
  readonly isLocal?: boolean;
}

export type Attachment =
  | { readonly kind: 'none' }
  | { readonly kind: 'bound'; readonly waypoint: Waypoint }
  | { readonly kind: 'refused'; readonly reason: RefusalReason; readonly message: string };

export type RefusalReason =
  | 'WaypointIsNotReady'
  | 'AttachmentDenied'
  | 'UnsupportedTrafficType'
  | 'CrossNamespaceWaypointForbidden';

/** Knows waypoints and namespaces; a waypoint that is asked for is remembered as one that the answer depends on. */
export interface Surroundings {
  waypoint(key: string): Waypoint | null;
  namespace(name: string): Namespace | null;
}

export const HBONE_PORT = 15008;
const USE_WAYPOINT = 'istio.io/use-waypoint';
const USE_WAYPOINT_CANARY = 'istio.io/use-waypoint-canary';

/** Null while the gateway is nowhere to be found: its status has no address before it was ready once. */
export function waypointOf(gateway: Gateway, gatewayClass: GatewayClass | null, network: string): Waypoint | null {
  const address = addressOf(gateway, network);
  if (address === null) return null;
  const inboundBinding = bindingOf(gateway.inboundBinding || (gatewayClass?.inboundBinding ?? ''));
  return {
    key: keyOf(gateway),
    namespace: gateway.namespace,
    address,
    trafficType: gateway.labels['istio.io/waypoint-for'] ?? gatewayClass?.labels['istio.io/waypoint-for'] ?? 'service',
    inboundBinding,
    allowed: allowedOf(gateway, inboundBinding),
  };
}

/** The waypoint that the object, or else its namespace, names. */
export function attachmentOf(object: Attachable, around: Surroundings): Attachment {
  const own = object.labels[USE_WAYPOINT];
  const namespace = around.namespace(object.namespace);
  const labels = own === undefined ? (namespace?.labels ?? {}) : object.labels;
  const attachment = lookUp(object, USE_WAYPOINT, labels, around);
  if (attachment.kind !== 'bound') return attachment;
  const { waypoint } = attachment;
  if (object.isLocal && waypoint.namespace !== object.namespace) {
    return refused(
      'CrossNamespaceWaypointForbidden',
      `waypoint ${waypoint.key} is of another namespace, and the object is visible in its own only`,
    );
  }
  if (suits(waypoint, object)) return attachment;
  // A namespace names one waypoint for what may be of either kind.
  if (object.kind === 'workload' && own === undefined) return NO_WAYPOINT;
  return unsuitable(waypoint, object);
}

export type Canary =
  | { readonly kind: 'none' }
  | { readonly kind: 'weighted'; readonly waypoint: Waypoint; readonly weight: number }
  | { readonly kind: 'refused'; readonly message: string };

/**
 * The second waypoint of a service, and the percentage of connections that it gets. The namespace is asked only by an
 * object that has its first waypoint from there, too.
 * @param weight the object's annotation
 */
export function canaryOf(object: Attachable, primary: Waypoint, weight: string, around: Surroundings): Canary {
  const isInherited = object.labels[USE_WAYPOINT] === undefined;
  const namespace = isInherited ? around.namespace(object.namespace) : null;
  const labels = object.labels[USE_WAYPOINT_CANARY] === undefined ? (namespace?.labels ?? {}) : object.labels;
  const attachment = lookUp(object, USE_WAYPOINT_CANARY, labels, around);
  if (attachment.kind === 'none') return attachment;
  if (attachment.kind === 'refused') return { kind: 'refused', message: attachment.message };
  const { waypoint } = attachment;
  if (!suits(waypoint, object)) return { kind: 'refused', message: unsuitable(waypoint, object).message };
  if (waypoint.key === primary.key) return { kind: 'refused', message: `it is ${primary.key} itself` };
  const text = weight || (namespace?.annotations.canaryWeight ?? '');
  const percent = text === '' ? 0 : parsePort(text);
  if (percent === null || percent > 100)
    return { kind: 'refused', message: `its weight ${JSON.stringify(text)} is no number from 0 to 100` };
  return { kind: 'weighted', waypoint, weight: percent };
}

function suits({ trafficType }: Waypoint, { kind }: Attachable): boolean {
  return trafficType === 'all' || trafficType === kind;
}

function unsuitable({ key, trafficType }: Waypoint, { kind }: Attachable) {
  return refused('UnsupportedTrafficType', `waypoint ${key} is for traffic of type ${trafficType}, not ${kind}`);
}

const NO_WAYPOINT: Attachment = { kind: 'none' };

function refused(reason: RefusalReason, message: string) {
  return { kind: 'refused', reason, message } as const;
}

/** The waypoint of a label and of its companion that names the namespace. */
function lookUp(object: Attachable, label: string, labels: Labels, around: Surroundings): Attachment {
  const name = labels[label];
  if (name === undefined || name === '' || name === 'none') return NO_WAYPOINT;
  const key = `${labels[`${label}-namespace`] || object.namespace}/${name}`;
  const waypoint = around.waypoint(key);
  if (waypoint === null)
    return refused('WaypointIsNotReady', `waypoint ${key} does not exist, or its status has no address yet`);
  if (!isAllowed(waypoint, object.namespace, around.namespace(object.namespace)?.labels ?? {}))
    return refused('AttachmentDenied', `waypoint ${key} does not allow objects of namespace ${object.namespace}`);
  return { kind: 'bound', waypoint };
}

function isAllowed({ allowed, namespace }: Waypoint, from: string, labels: Labels): boolean {
  switch (allowed.from) {
    case 'All':
      return true;
    case 'None':
      return false;
    case 'Same':
      return namespace === from;
    case 'Selector':
      return matchesLabels(allowed.selector, labels);
  }
}

/** A name is preferred: addresses may change behind it. */
function addressOf({ addresses, namespace }: Gateway, network: string): GatewayAddress | null {
  const hostname = addresses.find(({ type, value }) => type === 'Hostname' && value !== '')?.value;
  if (hostname !== undefined) return { destination: { kind: 'hostname', namespace, hostname }, port: HBONE_PORT };
  for (const { type, value } of addresses) {
    const ip = type === 'IPAddress' ? canonicalIp(value) : null;
    if (ip !== null) return { destination: { kind: 'address', network, ip }, port: HBONE_PORT };
  }
  return null;
}

/** `PROTOCOL` or `PROTOCOL/port` */
function bindingOf(text: string): ApplicationTunnel | null {
  const [protocol, port] = text.split('/', 2);
  if (protocol !== 'NONE' && protocol !== 'PROXY') return null;
  return { protocol, port: parsePort(port ?? '') ?? 0 };
}

function allowedOf({ listeners }: Gateway, binding: ApplicationTunnel | null): AllowedNamespaces {
  const bound =
    binding === null
      ? undefined
      : binding.port !== 0
        ? listeners.find(({ port }) => port === binding.port)
        : binding.protocol === 'PROXY'
          ? listeners.find(({ protocol }) => protocol === 'istio.io/PROXY')
          : undefined;
  const listener = bound ?? listeners.find(({ protocol, port }) => protocol === 'HBONE' && port === HBONE_PORT);
  return listener?.allowed ?? { from: 'Same' };
}

/**
 * Route plans: what the control thread answers when a worker asks where a connection goes. Plain data that crosses
 * threads and is cached by workers. Decided in outbound.ts and inbound.ts.
 */
import type { SocketAddress } from '../netns/address.ts';
import type { TextList } from '../state/text-list.ts';

/** What telemetry and the CONNECT request's baggage need of one side. All text, '' when unknown. */
export interface WorkloadLabels {
  readonly uid: string;
  /** The pod's name. */
  readonly name: string;
  readonly workloadName: string;
  /** `deployment`, `cronjob`, `pod`, `job` */
  readonly workloadType: string;
  readonly namespace: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
  readonly region: string;
  readonly zone: string;
  /** SPIFFE id of the workload, whether or not the connection proves it. */
  readonly identity: string;
}

export interface ServiceLabels {
  readonly hostname: string;
  readonly name: string;
  readonly namespace: string;
}

/** One endpoint of a plan, as a connection uses it; made from its group by EndpointSet (endpoint-set.ts). */
export interface PlannedEndpoint {
  /** uid of the workload the connection goes to (a waypoint's, when there is one); '' for passthrough */
  readonly uid: string;
  /** Where to open the TCP connection; the network gateway's when `inner` is set. */
  readonly address: SocketAddress;
  readonly tier: number;
  /** Relative share of new connections in its tier; > 0, not necessarily whole. */
  readonly weight: number;
  readonly protocol: 'hbone' | 'tcp';
  /** `:authority` of the CONNECT request, of both when `inner` is set; '' for tcp */
  readonly authority: string;
  /** SPIFFE ids of which the peer at `address` must present one; sorted, no duplicates; empty for tcp */
  readonly expectedIdentities: readonly string[];
  /** Only with hbone: the tunnel inside the tunnel to a network gateway; null when `address` is the destination's. */
  readonly inner: InnerTunnel | null;
  /** null for passthrough */
  readonly destination: WorkloadLabels | null;
  /** The name that the address was resolved from; '' when the mesh state gives the address */
  readonly hostname: string;
  /** Which endpoint it is for health and load: endpoints that share it live and die together. */
  readonly healthKey: string;
}

/**
 * Endpoints that differ in their workload and its address only, so that a service of ten thousand pods crosses threads
 * in about a millisecond. `uids`, `names` and `ips` belong together by position.
 */
export interface EndpointGroup {
  readonly protocol: 'hbone' | 'tcp';
  /** The port to connect to. */
  readonly port: number;
  /** own: `ip:port` of the endpoint with this port. fixed: the same for all. null for tcp */
  readonly authority:
    | { readonly kind: 'own'; readonly port: number }
    | { readonly kind: 'fixed'; readonly text: string }
    | null;
  /** Endpoints are used only while none of a lower tier can be. */
  readonly tier: number;
  /** Of each endpoint, among those of its tier; > 0 */
  readonly weight: number;
  readonly expectedIdentities: readonly string[];
  readonly inner: InnerTunnel | null;
  /** The name whose addresses they are; '' when the mesh state gives the addresses */
  readonly hostname: string;
  readonly destination: Omit<WorkloadLabels, 'uid' | 'name'> | null;
  readonly uids: TextList;
  /** Those that are not nameInUid; the others need not be sent. */
  readonly names: ReadonlyMap<number, string>;
  /** An IPv4 address can be a signed number. */
  readonly ips: readonly (string | number)[];
}

/** The second tunnel of double HBONE, end to end through a network gateway (spec §3.6). */
export interface InnerTunnel {
  /** SPIFFE ids of which the far end must present one; sorted, no duplicates. */
  readonly expectedIdentities: readonly string[];
  /** Name of the agent's own network, which the far end is told (`x-forwarded-network`). */
  readonly forwardedNetwork: string;
}

export type OutboundPlan =
  | {
      readonly kind: 'forward';
      /** The service addressed, also behind a waypoint. */
      readonly service: ServiceLabels | null;
      readonly source: WorkloadLabels;
      /** At least one, none empty, the lowest tier first. EndpointSet lists them and picks from them. */
      readonly groups: readonly EndpointGroup[];
    }
  | { readonly kind: 'reject'; readonly reason: OutboundRejection };

/** Why an outbound connection is refused. `message` is the operator's text (spec §13.6); `tag` is stable. */
export interface OutboundRejection {
  readonly tag: OutboundRejectionTag;
  readonly message: string;
}

export type OutboundRejectionTag =
  /** The pod is not (yet) in the mesh state. */
  | 'unknown-local-workload'
  /** A waypoint is configured but cannot be reached; it is never bypassed. */
  | 'unknown-waypoint'
  /** The service is known but none of its endpoints can take this port. */
  | 'no-healthy-upstream'
  /** The destination workload is on another network and was not addressed by a service. */
  | 'no-service-for-target'
  /** The chosen workload has no usable address. */
  | 'no-valid-destination'
  /** The gateway of the other network is not known, or has no endpoint. */
  | 'unknown-gateway'
  /** Only known by a name, for which DNS has no address. */
  | 'unresolved-hostname'
  /** Planning failed: an error in the agent. */
  | 'not-planned';

export type InboundPlan =
  | {
      readonly kind: 'deliver';
      /** The application: the connection's local IP and the resolved port. Policy judges this address. */
      readonly target: SocketAddress;
      /** Workload found by the peer's address; null when unknown or behind a gateway */
      readonly source: WorkloadLabels | null;
      readonly destination: WorkloadLabels;
      /** Destination service for telemetry. */
      readonly service: ServiceLabels | null;
      /** Set when the application expects a PROXY header (spec §4.3); `destination` goes into it. */
      readonly appTunnel: { readonly protocol: 'PROXY'; readonly destination: SocketAddress } | null;
    }
  | { readonly kind: 'reject'; readonly status: 400 | 503; readonly reason: InboundRejection };

export interface InboundRejection {
  readonly tag: InboundRejectionTag;
  readonly message: string;
}

export type InboundRejectionTag =
  | 'bad-authority'
  | 'unknown-local-workload'
  /** The authority names an address that is neither ours nor one we are the waypoint of. */
  | 'ip-mismatch'
  | 'unknown-hostname'
  | 'unresolvable-port'
  | 'service-without-address'
  /** The resolved port is one of the agent's own. */
  | 'self-call'
  /** Planning failed: an error in the agent. */
  | 'not-planned';

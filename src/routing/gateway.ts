import type { RouteState } from '../state/recorded-reads.ts';
import { type GatewayAddress, identityOf, type Service, serviceKey, type Workload } from '../state/types.ts';
import { listOf, type PortRule, type UpstreamGroup, upstreamsOf } from './load-balance.ts';

/** Where tunnels to a waypoint or a network gateway can go. */
export interface ResolvedGateway {
  /** May be empty: then nothing behind the reference can take the tunnel. */
  readonly upstreams: readonly UpstreamGroup[];
  /** The address whose family decides which of a workload's addresses is dialled. */
  readonly familyTarget: string;
}

/**
 * The workloads of a waypoint or a network gateway, as seen from `source` (spec §3.3); null when the reference leads
 * nowhere.
 */
export function resolveGateway(
  mesh: RouteState,
  source: Workload,
  gateway: GatewayAddress,
  target: string,
  portRule: PortRule,
): ResolvedGateway | null {
  const found = findGateway(mesh, gateway, source.namespace);
  if (found === null) return null;
  const port = gateway.hboneMtlsPort;
  const upstreams =
    found.kind === 'workload'
      ? [upstreamOf(found.workload, port)]
      : upstreamsOf(mesh, source, found.service, port, portRule);
  const { destination } = gateway;
  return { upstreams, familyTarget: destination.kind === 'address' ? destination.ip : target };
}

/**
 * True when the connection comes out of the waypoint itself: the source carries the identity of a workload behind the
 * reference, and the peer address is that workload's.
 */
export function isFromWaypoint(mesh: RouteState, source: Workload, waypoint: GatewayAddress, peerIp: string): boolean {
  const found = findGateway(mesh, waypoint, source.namespace);
  if (found === null) return false;
  const identity = identityOf(source);
  if (found.kind === 'workload') {
    return identityOf(found.workload) === identity && found.workload.workloadIps.includes(peerIp);
  }
  let isFound = false;
  mesh.forEachEndpoint(found.service, ({ profile, addresses }) => {
    if (isFound || identityOf(profile) !== identity) return;
    isFound = listOf(addresses).includes(peerIp);
  });
  return isFound;
}

/** True when the reference leads to the workload that holds `localIp`. */
export function isWaypointOf(mesh: RouteState, local: Workload, localIp: string, waypoint: GatewayAddress): boolean {
  const found = findGateway(mesh, waypoint, local.namespace);
  if (found === null) return false;
  return found.kind === 'workload'
    ? found.workload.workloadIps.includes(localIp)
    : found.service.endpoints.has(local.uid);
}

/** All waypoints a service may send a connection through: the weighted ones with a share, else the one. */
export function waypointsOf(service: Service): { readonly waypoint: GatewayAddress; readonly weight: number }[] {
  const weighted = service.weightedWaypoints
    .filter(({ weight }) => weight > 0)
    .map(({ destination, weight }) => ({ waypoint: destination, weight }));
  if (weighted.length > 0) return weighted;
  return service.waypoint === null ? [] : [{ waypoint: service.waypoint, weight: 1 }];
}

/** A workload by itself. */
export function upstreamOf(workload: Workload, port: number): UpstreamGroup {
  return {
    profile: workload,
    port,
    service: null,
    tier: 0,
    weight: 1,
    uids: [workload.uid],
    names: new Map([[0, workload.name]]),
    addresses: [workload.workloadIps],
  };
}

/** How messages name a gateway. */
export function gatewayName({ destination }: GatewayAddress): string {
  return destination.kind === 'address' ? destination.ip : destination.hostname;
}

type FoundGateway =
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'workload'; readonly workload: Workload };

/** A service first, because that is what references usually name; a workload else. */
function findGateway(mesh: RouteState, { destination }: GatewayAddress, clientNamespace: string): FoundGateway | null {
  const service =
    destination.kind === 'address'
      ? mesh.serviceByVip(destination.network, destination.ip, clientNamespace)
      : mesh.service(serviceKey(destination));
  if (service !== null) return { kind: 'service', service };
  const workload =
    destination.kind === 'address'
      ? mesh.workloadByAddress(destination.network, destination.ip)
      : mesh.workloadByHostname(destination.namespace, destination.hostname);
  return workload === null ? null : { kind: 'workload', workload };
}

import type { RouteState } from '../state/recorded-reads.ts';
import type { Endpoint, LoadBalancer, RoutingScope, Service, Workload } from '../state/types.ts';

/** A workload that can take the connection. */
export interface Upstream {
  readonly workload: Workload;
  /** The port on the workload. */
  readonly port: number;
  /** The service whose endpoint it is; null when the workload itself was addressed. */
  readonly service: Service | null;
  /** > 0 */
  readonly weight: number;
}

/**
 * Standard: the service must list the port. Waypoint: an endpoint with an application tunnel takes any port, because a
 * waypoint's service need not list the ports of the services behind it.
 */
export type PortRule = 'standard' | 'waypoint';

/**
 * The endpoints of a service that may take a connection from `source` to `port`, with their weights (spec §3.4, §3.5).
 * Unlike the incumbent, endpoints that could not be used anyway (weight 0, no such port) are left out before localities
 * are compared, so that they cannot shadow a usable endpoint farther away.
 */
export function loadBalance(
  mesh: RouteState,
  source: Workload,
  service: Service,
  port: number,
  portRule: PortRule,
): Upstream[] {
  const standard = portRule === 'standard';
  if (standard && service.ports[port] === undefined) return [];
  const candidates: Upstream[] = [];
  for (const endpoint of service.endpoints.values()) {
    const workload = mesh.workload(endpoint.workloadUid);
    if (workload === null || workload.capacity === 0 || !isDialable(workload, source)) continue;
    const targetPort = mapPort(service, endpoint, port) ?? (standard ? null : tunnelledPort(workload, port));
    if (targetPort === null) continue;
    candidates.push({ workload, port: targetPort, service, weight: workload.capacity });
  }
  return preferLocal(candidates, source, service.loadBalancer);
}

/** The endpoint's mapping, else the service's. Null when the port is unlisted, or named and the endpoint lacks the name. */
function mapPort(service: Service, endpoint: Endpoint, port: number): number | null {
  return endpoint.port[port] || service.ports[port] || null;
}

/** A workload whose application tunnel has its own port is reached on the port asked for, whatever that is. */
function tunnelledPort(workload: Workload, port: number): number | null {
  return workload.applicationTunnel?.port ? port : null;
}

function isDialable(workload: Workload, source: Workload): boolean {
  if (workload.workloadIps.length > 0 || workload.hostname !== '') return true;
  return workload.network !== source.network && workload.networkGateway !== null;
}

function preferLocal(candidates: Upstream[], source: Workload, balancer: LoadBalancer | null): Upstream[] {
  if (balancer?.mode !== 'Strict' && balancer?.mode !== 'Failover') return candidates;
  const { mode, routingPreferences } = balancer;
  if (mode === 'Strict') {
    return candidates.filter(({ workload }) =>
      routingPreferences.every((scope) => scopeOf[scope](workload) === scopeOf[scope](source)),
    );
  }
  const ranks = candidates.map(({ workload }) => localityRank(workload, source, routingPreferences));
  const highest = ranks.reduce((most, rank) => Math.max(most, rank), 0);
  return candidates.filter((_, index) => ranks[index] === highest);
}

/**
 * How many leading scopes the workload shares with the source. When the network comes first, sharing it counts as much
 * as all the others together, and not sharing it does not end the count: a near endpoint beyond a gateway still beats a
 * far one beyond it, but never one on this network.
 */
export function localityRank(workload: Workload, source: Workload, scopes: readonly RoutingScope[]): number {
  let rank = 0;
  for (const [index, scope] of scopes.entries()) {
    const networkFirst = index === 0 && scope === 'Network';
    if (scopeOf[scope](workload) === scopeOf[scope](source)) rank += networkFirst ? scopes.length : 1;
    else if (!networkFirst) break;
  }
  return rank;
}

const scopeOf: Readonly<Record<RoutingScope, (workload: Workload) => string>> = {
  Region: ({ locality }) => locality.region,
  Zone: ({ locality }) => locality.zone,
  Subzone: ({ locality }) => locality.subzone,
  Node: ({ node }) => node,
  Cluster: ({ clusterId }) => clusterId,
  Network: ({ network }) => network,
};

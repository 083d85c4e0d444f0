import { formatIpv4 } from '../netns/address.ts';
import type { Member, MemberAddresses } from '../state/mesh-state.ts';
import type { RouteState } from '../state/recorded-reads.ts';
import { type TextList, TextListBuilder, textAt } from '../state/text-list.ts';
import type { LoadBalancer, PortMap, RoutingScope, Service, Workload } from '../state/types.ts';
import { portsIn, type WorkloadProfile } from '../state/workload-profile.ts';

/** Workloads that can take the connection and differ in what is their own only. */
export interface UpstreamGroup {
  /** What they have in common. */
  readonly profile: Omit<WorkloadProfile, 'ports'>;
  /** The port on the workload. */
  readonly port: number;
  /** The service whose endpoints they are; null when the workload itself was addressed. */
  readonly service: Service | null;
  /** 0 for the nearest; the others take over when none nearer can be used. */
  readonly tier: number;
  /** Of each; > 0 */
  readonly weight: number;
  /** At least one. What follows belongs to them by position. */
  readonly uids: TextList;
  /** Those that are not nameInUid. */
  readonly names: ReadonlyMap<number, string>;
  readonly addresses: readonly MemberAddresses[];
}

/** A workload that can take the connection. */
export interface Upstream extends Pick<UpstreamGroup, 'port' | 'service' | 'weight'> {
  readonly workload: Workload;
}

/**
 * Standard: the service must list the port. Waypoint: an endpoint with an application tunnel takes any port, because a
 * waypoint's service need not list the ports of the services behind it.
 */
export type PortRule = 'standard' | 'waypoint';

/** Canonical. */
export function listOf(addresses: MemberAddresses): readonly string[] {
  if (typeof addresses === 'number') return [formatIpv4(addresses)];
  return typeof addresses === 'string' ? [addresses] : addresses;
}

/** The nearest endpoints of those that upstreamsOf finds, one by one. */
export function loadBalance(
  mesh: RouteState,
  source: Workload,
  service: Service,
  port: number,
  portRule: PortRule,
): Upstream[] {
  const nearest = upstreamsOf(mesh, source, service, port, portRule).filter(({ tier }) => tier === 0);
  return nearest.flatMap(({ uids, ...group }) =>
    group.addresses.flatMap((_, at) => {
      const workload = mesh.workload(textAt(uids, at));
      return workload === null ? [] : [{ workload, port: group.port, service: group.service, weight: group.weight }];
    }),
  );
}

/**
 * The endpoints of a service that may take a connection from `source` to `port`, with their weights (spec §3.4, §3.5).
 * Unlike the incumbent, endpoints that could not be used anyway (weight 0, no such port) are left out before localities
 * are compared, so that they cannot shadow a usable endpoint farther away; and with the mode Failover the farther ones
 * are kept as further tiers, for when connections fail to all that are nearer.
 *
 * What is decided is decided once for all workloads of a profile: a service may have ten thousand endpoints.
 */
export function upstreamsOf(
  mesh: RouteState,
  source: Workload,
  service: Service,
  port: number,
  portRule: PortRule,
): UpstreamGroup[] {
  if (portRule === 'standard' && service.ports[port] === undefined) return [];
  const balancer = service.loadBalancer;
  const isRanked = balancer?.mode === 'Strict' || balancer?.mode === 'Failover';
  const nodesDiffer = isRanked && balancer.routingPreferences.includes('Node');
  const key = `${service.namespace}/${service.hostname}`;
  const groups = new Map<WorkloadProfile | string, Candidates | null>();
  const keysByProfile = new Map<WorkloadProfile, string>();
  mesh.forEachEndpoint(service, (member) => {
    const { profile } = member;
    let groupKey: WorkloadProfile | string = profile;
    if (nodesDiffer) {
      let prefix = keysByProfile.get(profile);
      if (prefix === undefined) {
        prefix = `${keysByProfile.size} `;
        keysByProfile.set(profile, prefix);
      }
      groupKey = prefix + member.node;
    }
    let group = groups.get(groupKey);
    if (group === undefined) {
      group = candidatesOf(source, service, portsIn(profile, key) ?? {}, port, portRule, member);
      groups.set(groupKey, group);
    }
    if (group === null) return;
    const { addresses, ownName } = member;
    if (typeof addresses === 'object' && addresses.length === 0 && !group.needsNoAddress) return;
    member.appendUid(group.uids);
    if (ownName !== null) group.names.set(group.addresses.length, ownName);
    group.addresses.push(addresses);
  });
  const candidates = [...groups.values()].filter(
    (group) => group !== null && group.addresses.length > 0,
  ) as Candidates[];
  return preferLocal(candidates, source, balancer);
}

interface Candidates extends Omit<UpstreamGroup, 'tier' | 'uids'> {
  readonly uids: TextListBuilder;
  readonly names: Map<number, string>;
  readonly addresses: MemberAddresses[];
  /** It can be resolved by name, or reached through the gateway of its network. */
  readonly needsNoAddress: boolean;
  readonly place: Place;
}

/** null when workloads of the profile cannot take the connection, whichever it is. */
function candidatesOf(
  source: Workload,
  service: Service,
  endpointPorts: PortMap,
  port: number,
  portRule: PortRule,
  { profile, node }: Member,
): Candidates | null {
  const targetPort =
    mapPort(service, endpointPorts, port) ?? (portRule === 'standard' ? null : tunnelledPort(profile, port));
  if (targetPort === null || profile.capacity === 0) return null;
  const isBeyondGateway = profile.network !== source.network && profile.networkGateway !== null;
  return {
    profile,
    port: targetPort,
    service,
    weight: profile.capacity,
    uids: new TextListBuilder(),
    names: new Map(),
    addresses: [],
    needsNoAddress: profile.hostname !== '' || isBeyondGateway,
    place: { ...profile, node },
  };
}

/** The endpoint's mapping, else the service's. Null when the port is unlisted, or named and the endpoint lacks the name. */
function mapPort(service: Service, endpointPorts: PortMap, port: number): number | null {
  return endpointPorts[port] || service.ports[port] || null;
}

/** A workload whose application tunnel has its own port is reached on the port asked for, whatever that is. */
function tunnelledPort({ applicationTunnel }: WorkloadProfile, port: number): number | null {
  return applicationTunnel?.port ? port : null;
}

function preferLocal(candidates: Candidates[], source: Workload, balancer: LoadBalancer | null): UpstreamGroup[] {
  if (balancer?.mode !== 'Strict' && balancer?.mode !== 'Failover') return candidates.map((each) => inTier(each, 0));
  const { mode, routingPreferences } = balancer;
  if (mode === 'Strict') {
    return candidates
      .filter(({ place }) => routingPreferences.every((scope) => scopeOf[scope](place) === scopeOf[scope](source)))
      .map((each) => inTier(each, 0));
  }
  const ranks = candidates.map(({ place }) => localityRank(place, source, routingPreferences));
  const tiers = [...new Set(ranks)].sort((a, b) => b - a);
  return candidates.map((each, index) => inTier(each, tiers.indexOf(ranks[index]!))).sort((a, b) => a.tier - b.tier);
}

function inTier({ needsNoAddress, place, uids, ...group }: Candidates, tier: number): UpstreamGroup {
  return { ...group, uids: uids.list(), tier };
}

/** What localities are compared by. */
type Place = Pick<Workload, 'locality' | 'node' | 'clusterId' | 'network'>;

/**
 * How many leading scopes the workload shares with the source. When the network comes first, sharing it counts as much
 * as all the others together, and not sharing it does not end the count: a near endpoint beyond a gateway still beats a
 * far one beyond it, but never one on this network.
 */
export function localityRank(workload: Place, source: Place, scopes: readonly RoutingScope[]): number {
  let rank = 0;
  for (const [index, scope] of scopes.entries()) {
    const networkFirst = index === 0 && scope === 'Network';
    if (scopeOf[scope](workload) === scopeOf[scope](source)) rank += networkFirst ? scopes.length : 1;
    else if (!networkFirst) break;
  }
  return rank;
}

const scopeOf: Readonly<Record<RoutingScope, (workload: Place) => string>> = {
  Region: ({ locality }) => locality.region,
  Zone: ({ locality }) => locality.zone,
  Subzone: ({ locality }) => locality.subzone,
  Node: ({ node }) => node,
  Cluster: ({ clusterId }) => clusterId,
  Network: ({ network }) => network,
};

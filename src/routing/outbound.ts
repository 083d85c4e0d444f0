import { formatSocketAddress, isIpv4, type SocketAddress } from '../netns/address.ts';
import type { MemberAddresses } from '../state/mesh-state.ts';
import type { RouteState } from '../state/recorded-reads.ts';
import { textAt, textCount } from '../state/text-list.ts';
import { type GatewayAddress, identityOf, nameInUid, type Service, type Workload } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';
import { gatewayName, isFromWaypoint, resolveGateway, upstreamOf, waypointsOf } from './gateway.ts';
import { profileLabels, serviceLabels, workloadLabels } from './labels.ts';
import { listOf, type UpstreamGroup, upstreamsOf } from './load-balance.ts';
import { NO_NAMES, type ResolvedNames } from './names.ts';
import type { EndpointGroup, OutboundPlan, OutboundRejection } from './plan.ts';
import { unknownLocalWorkload } from './unknown-local-workload.ts';
import { chooseAddress } from './workload-ip.ts';

/**
 * Where connections of a pod to an address go (spec §3.2). Pure: the same state gives the same plan; the random choice
 * among the endpoints is left to EndpointSet.
 *
 * Endpoints that cannot be used are left out as long as one can; only when none is left does the plan reject, with the
 * reason of the first. Unlike the incumbent a service's waypoint is skipped for connections that come out of that waypoint.
 *
 * @param target original destination, canonical
 * @param network name of this agent's network
 * @param peerIp canonical source address of the connection, which tells a waypoint's own connections
 * @param names what is known of workloads that have a name instead of addresses
 */
export function planOutbound(
  mesh: RouteState,
  pod: PodInfo,
  target: SocketAddress,
  network: string,
  peerIp: string,
  names: ResolvedNames = NO_NAMES,
): OutboundPlan {
  const source = mesh.localWorkload(pod);
  if (source === null) return reject(unknownLocalWorkload(pod));
  const query: Query = { mesh, names, source, target, peerIp, network };

  // Here a workload's address wins over a VIP; in findUpstreams it is the other way round (spec §3.2 A and B).
  const isWorkload = mesh.workloadByAddress(network, target.ip) !== null;
  const service = isWorkload ? null : mesh.serviceByVip(network, target.ip, source.namespace);

  if (service !== null) {
    const waypoints = waypointsOf(service);
    const fromWaypoint = waypoints.some(({ waypoint }) => isFromWaypoint(mesh, source, waypoint, peerIp));
    if (waypoints.length > 0 && !fromWaypoint) {
      return forward(
        query,
        service,
        waypoints.flatMap(({ waypoint, weight }) => toWaypoint(query, waypoint, weight, service)),
      );
    }
  }

  const upstreams = findUpstreams(query);
  if (upstreams === null) return passthrough(query);
  if (upstreams.length === 0) return reject(noHealthyUpstream(target));
  const outcomes = upstreams.flatMap((upstream) => toUpstream(query, upstream, service));
  return forward(query, service ?? upstreams[0]!.service, outcomes);
}

/** Where HBONE is served in every pod. */
const HBONE_PORT = 15008;

interface Query {
  readonly mesh: RouteState;
  readonly names: ResolvedNames;
  readonly source: Workload;
  readonly target: SocketAddress;
  readonly peerIp: string;
  /** Name of this agent's network. */
  readonly network: string;
}

/** What became of candidates. */
type Outcome = EndpointGroup | OutboundRejection;

/** A service first, then a workload. Null: nothing of the mesh, or a service that asks to be left alone. */
function findUpstreams({ mesh, source, target }: Query): readonly UpstreamGroup[] | null {
  const service = mesh.serviceByVip(source.network, target.ip, source.namespace);
  if (service?.loadBalancer?.mode === 'Passthrough') return null;
  const workload = mesh.workloadByAddress(source.network, target.ip);
  const itself = workload === null ? [] : [upstreamOf(workload, target.port)];
  if (service === null) return workload === null ? null : itself;
  const endpoints = upstreamsOf(mesh, source, service, target.port, 'standard');
  return endpoints.length > 0 ? endpoints : itself;
}

function toUpstream(query: Query, upstream: UpstreamGroup, service: Service | null): Outcome[] {
  const { mesh, source, target, peerIp } = query;
  const { network, waypoint } = upstream.profile;
  if (network !== source.network) {
    // A tunnel through a gateway names the service addressed, so there has to be one.
    return service === null ? [noServiceForTarget(target)] : throughGateway(query, upstream, service);
  }
  if (service === null && waypoint !== null && !isFromWaypoint(mesh, source, waypoint, peerIp)) {
    return toWaypoint(query, waypoint, upstream.weight, null);
  }
  const { port } = upstream;
  return upstream.profile.protocol === 'HBONE'
    ? toMembers(query, upstream, target.ip, {
        protocol: 'hbone',
        port: HBONE_PORT,
        authority: { kind: 'own', port },
        expectedIdentities: identitiesOf(upstream),
      })
    : toMembers(query, upstream, target.ip, { protocol: 'tcp', port, authority: null, expectedIdentities: [] });
}

/**
 * Tunnels to a waypoint carry the address the client asked for. `share` is spread over the waypoint's endpoints.
 *
 * @param service the service whose waypoint it is; null for a workload's
 */
function toWaypoint(query: Query, waypoint: GatewayAddress, share: number, service: Service | null): Outcome[] {
  const { mesh, source, target } = query;
  const resolved = resolveGateway(mesh, source, waypoint, target.ip, 'waypoint');
  if (resolved === null || resolved.upstreams.length === 0) return [unknownWaypoint(waypoint, resolved !== null)];
  const outcomes = resolved.upstreams.flatMap((upstream): Outcome[] => {
    if (upstream.profile.network !== source.network) {
      return service === null ? [noServiceForTarget(target)] : throughGateway(query, upstream, service);
    }
    return toMembers(query, upstream, resolved.familyTarget, {
      protocol: 'hbone',
      port: upstream.port,
      authority: { kind: 'fixed', text: formatSocketAddress(target) },
      expectedIdentities: identitiesOf(upstream),
    });
  });
  return shared(outcomes, share);
}

/**
 * Double HBONE (spec §3.6): both tunnels name the service by its hostname, because its addresses mean something else on
 * the other network. The weight of the upstream is spread over the gateway's endpoints.
 */
function throughGateway(query: Query, upstream: UpstreamGroup, service: Service): Outcome[] {
  const { mesh, source, target } = query;
  const { profile, uids, names } = upstream;
  const gateway = profile.networkGateway;
  if (gateway === null) return [noValidDestination(textAt(uids, 0), names.get(0) ?? null)];
  const resolved = resolveGateway(mesh, source, gateway, target.ip, 'standard');
  if (resolved === null || resolved.upstreams.length === 0) return [unknownGateway(gateway, resolved !== null)];
  const inner = { expectedIdentities: innerIdentities(upstream), forwardedNetwork: query.network };
  const outcomes = resolved.upstreams.flatMap((hop): Outcome[] =>
    toMembers(query, hop, resolved.familyTarget, {
      protocol: 'hbone',
      port: hop.port,
      authority: { kind: 'fixed', text: `${service.hostname}:${target.port}` },
      expectedIdentities: identitiesOf(hop),
      inner,
    }).flatMap((outcome): Outcome[] =>
      'tag' in outcome
        ? [outcome]
        : outcome.ips.map((ip) => ({
            ...outcome,
            destination: profileLabels(profile),
            uids,
            names,
            ips: upstream.addresses.map(() => ip),
          })),
    ),
  );
  return shared(outcomes, upstream.weight * textCount(uids)).map((outcome) =>
    'tag' in outcome ? outcome : { ...outcome, tier: upstream.tier + outcome.tier },
  );
}

/** Divides a share among those of each tier that can be used, by their weights. */
function shared(outcomes: readonly Outcome[], share: number): Outcome[] {
  const totals = new Map<number, number>();
  for (const outcome of outcomes) {
    if ('tag' in outcome) continue;
    totals.set(outcome.tier, (totals.get(outcome.tier) ?? 0) + outcome.weight * outcome.ips.length);
  }
  return outcomes.map((outcome) =>
    'tag' in outcome ? outcome : { ...outcome, weight: (share * outcome.weight) / totals.get(outcome.tier)! },
  );
}

/** How to get to the members of an upstream; those that have no address give the reason instead. */
function toMembers(
  { names: resolver }: Query,
  { profile, service, tier, weight, ...members }: UpstreamGroup,
  familyTarget: string,
  way: Pick<EndpointGroup, 'protocol' | 'port' | 'authority' | 'expectedIdentities'> & Partial<EndpointGroup>,
): Outcome[] {
  const { hostname, networkGateway } = profile;
  const others: Outcome[] = [];
  const group = (of: Pick<EndpointGroup, 'uids' | 'names' | 'ips' | 'weight' | 'hostname'>): EndpointGroup => ({
    inner: null,
    tier,
    ...way,
    destination: profileLabels(profile),
    ...of,
  });
  const families = service?.ipFamilies ?? null;
  if (families === null && isOneEach(members.addresses)) {
    // The only address of each, and nothing speaks against it.
    const { uids, names, addresses } = members;
    return [group({ weight, hostname: '', uids, names, ips: addresses })];
  }
  const uids: string[] = [];
  const names = new Map<number, string>();
  const ips: string[] = [];
  for (const [at, addresses] of members.addresses.entries()) {
    const uid = textAt(members.uids, at);
    const name = members.names.get(at) ?? null;
    const workloadIps = listOf(addresses);
    const address = chooseAddress({ workloadIps, hostname, networkGateway }, familyTarget, families);
    if (address.kind === 'ip') {
      if (name !== null) names.set(uids.length, name);
      uids.push(uid);
      ips.push(address.ip);
    } else if (address.kind === 'hostname') {
      const resolved = resolver.addresses(hostname);
      if (resolved === null || resolved.ips.length === 0) {
        others.push(unresolved(uid, hostname, resolved?.failure ?? ''));
        continue;
      }
      const sameFamily = resolved.ips.filter((ip) => isIpv4(ip) === isIpv4(familyTarget));
      const usable = sameFamily.length > 0 ? sameFamily : resolved.ips;
      others.push(
        group({
          weight: weight / usable.length,
          hostname,
          uids: usable.map(() => uid),
          names: new Map(name === null ? [] : usable.map((_, at) => [at, name])),
          ips: usable,
        }),
      );
    } else {
      others.push(noValidDestination(uid, name));
    }
  }
  if (ips.length > 0) others.unshift(group({ weight, hostname: '', uids, names, ips }));
  return others;
}

function isOneEach(addresses: readonly MemberAddresses[]): addresses is readonly (string | number)[] {
  return addresses.every((each) => typeof each !== 'object');
}

function identitiesOf({ profile, service }: UpstreamGroup): string[] {
  const own = identityOf(profile);
  if (service === null || service.subjectAltNames.length === 0) return [own];
  return [...new Set([own, ...service.subjectAltNames])].sort();
}

/**
 * Who may be at the end of an inner tunnel. Beyond a gateway one entry can stand for many pods, so the names of its
 * service count. Unlike the incumbent, which never reaches a service without names, the entry's own identity does when
 * there are none.
 */
function innerIdentities({ profile, service }: UpstreamGroup): string[] {
  const names = service?.subjectAltNames ?? [];
  return names.length === 0 ? [identityOf(profile)] : [...new Set(names)].sort();
}

function forward({ source }: Query, service: Service | null, outcomes: readonly Outcome[]): OutboundPlan {
  const groups = outcomes.filter((outcome): outcome is EndpointGroup => !('tag' in outcome));
  if (groups.length === 0) return reject(outcomes.find((outcome) => 'tag' in outcome) as OutboundRejection);
  groups.sort((a, b) => a.tier - b.tier);
  return {
    kind: 'forward',
    service: service && serviceLabels(service),
    source: workloadLabels(source),
    groups,
  };
}

/** Plain TCP to where the client wanted to go; the mesh knows nothing of the destination. */
function passthrough({ source, target }: Query): OutboundPlan {
  const group: EndpointGroup = {
    protocol: 'tcp',
    port: target.port,
    authority: null,
    tier: 0,
    weight: 1,
    expectedIdentities: [],
    inner: null,
    hostname: '',
    destination: null,
    uids: [''],
    names: new Map(),
    ips: [target.ip],
  };
  return { kind: 'forward', service: null, source: workloadLabels(source), groups: [group] };
}

function reject(reason: OutboundRejection): OutboundPlan {
  return { kind: 'reject', reason };
}

function unknownWaypoint(waypoint: GatewayAddress, hasService: boolean): OutboundRejection {
  const why = hasService ? `: no endpoint of it takes port ${waypoint.hboneMtlsPort}` : '';
  return { tag: 'unknown-waypoint', message: `unknown waypoint: waypoint ${gatewayName(waypoint)} not found${why}` };
}

function noHealthyUpstream(target: SocketAddress): OutboundRejection {
  return { tag: 'no-healthy-upstream', message: `no healthy upstream: ${formatSocketAddress(target)}` };
}

function noServiceForTarget(target: SocketAddress): OutboundRejection {
  return { tag: 'no-service-for-target', message: `no service for target address: ${formatSocketAddress(target)}` };
}

function noValidDestination(uid: string, name: string | null): OutboundRejection {
  const message = `no valid routing destination for workload: ${name ?? nameInUid(uid)}`;
  return { tag: 'no-valid-destination', message };
}

function unknownGateway(gateway: GatewayAddress, hasService: boolean): OutboundRejection {
  const why = hasService ? `: no endpoint of it takes port ${gateway.hboneMtlsPort}` : '';
  return { tag: 'unknown-gateway', message: `network gateway ${gatewayName(gateway)} not found${why}` };
}

function unresolved(uid: string, hostname: string, failure: string): OutboundRejection {
  const why = failure === '' ? '' : ` (${hostname}: ${failure})`;
  return { tag: 'unresolved-hostname', message: `no ip addresses were resolved for workload: ${uid}${why}` };
}

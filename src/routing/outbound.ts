import { formatSocketAddress, type SocketAddress } from '../netns/address.ts';
import type { RouteState } from '../state/recorded-reads.ts';
import { type GatewayAddress, identityOf, type Service, type Workload } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';
import { gatewayName, isFromWaypoint, resolveGateway, waypointsOf } from './gateway.ts';
import { serviceLabels, workloadLabels } from './labels.ts';
import { loadBalance, type Upstream } from './load-balance.ts';
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
 */
export function planOutbound(
  mesh: RouteState,
  pod: PodInfo,
  target: SocketAddress,
  network: string,
  peerIp: string,
): OutboundPlan {
  const source = mesh.localWorkload(pod);
  if (source === null) return reject(unknownLocalWorkload(pod));
  const query: Query = { mesh, source, target, peerIp, network };

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
  readonly source: Workload;
  readonly target: SocketAddress;
  readonly peerIp: string;
  /** Name of this agent's network. */
  readonly network: string;
}

interface Candidate extends Omit<EndpointGroup, 'uids' | 'names' | 'ips' | 'destination'> {
  readonly workload: Workload;
  readonly ip: string;
}

/** What became of one candidate. */
type Outcome = Candidate | OutboundRejection;

/** A service first, then a workload. Null: nothing of the mesh, or a service that asks to be left alone. */
function findUpstreams({ mesh, source, target }: Query): readonly Upstream[] | null {
  const service = mesh.serviceByVip(source.network, target.ip, source.namespace);
  if (service?.loadBalancer?.mode === 'Passthrough') return null;
  const workload = mesh.workloadByAddress(source.network, target.ip);
  const itself: Upstream[] = workload === null ? [] : [{ workload, port: target.port, service: null, weight: 1 }];
  if (service === null) return workload === null ? null : itself;
  const endpoints = loadBalance(mesh, source, service, target.port, 'standard');
  return endpoints.length > 0 ? endpoints : itself;
}

function toUpstream(query: Query, upstream: Upstream, service: Service | null): Outcome[] {
  const { mesh, source, target, peerIp } = query;
  const { workload } = upstream;
  if (workload.network !== source.network) {
    // A tunnel through a gateway names the service addressed, so there has to be one.
    return service === null ? [noServiceForTarget(target)] : throughGateway(query, upstream, service, upstream.weight);
  }
  const { waypoint } = workload;
  if (service === null && waypoint !== null && !isFromWaypoint(mesh, source, waypoint, peerIp)) {
    return toWaypoint(query, waypoint, upstream.weight, null);
  }
  return [toWorkload(upstream, target.ip)];
}

function toWorkload(upstream: Upstream, familyTarget: string): Outcome {
  const { workload, port } = upstream;
  const ip = addressOf(upstream, familyTarget);
  if (typeof ip !== 'string') return ip;
  const tunnelled = workload.protocol === 'HBONE';
  return {
    workload,
    ip,
    port: tunnelled ? HBONE_PORT : port,
    weight: upstream.weight,
    protocol: tunnelled ? 'hbone' : 'tcp',
    authority: tunnelled ? { kind: 'own', port } : null,
    expectedIdentities: tunnelled ? identitiesOf(upstream) : [],
    inner: null,
  };
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
    const { workload, port, weight } = upstream;
    if (workload.network !== source.network) {
      return service === null ? [noServiceForTarget(target)] : throughGateway(query, upstream, service, weight);
    }
    const ip = addressOf(upstream, resolved.familyTarget);
    if (typeof ip !== 'string') return [ip];
    return [
      {
        workload,
        ip,
        port,
        weight,
        protocol: 'hbone',
        authority: { kind: 'fixed', text: formatSocketAddress(target) },
        expectedIdentities: identitiesOf(upstream),
        inner: null,
      },
    ];
  });
  return shared(outcomes, share);
}

/**
 * Double HBONE (spec §3.6): both tunnels name the service by its hostname, because its addresses mean something else on
 * the other network. `share` is spread over the gateway's endpoints.
 */
function throughGateway(query: Query, upstream: Upstream, service: Service, share: number): Outcome[] {
  const { mesh, source, target } = query;
  const { workload } = upstream;
  const gateway = workload.networkGateway;
  if (gateway === null) return [noValidDestination(workload)];
  const resolved = resolveGateway(mesh, source, gateway, target.ip, 'standard');
  if (resolved === null || resolved.upstreams.length === 0) return [unknownGateway(gateway, resolved !== null)];
  const inner = { expectedIdentities: innerIdentities(upstream), forwardedNetwork: query.network };
  const outcomes = resolved.upstreams.map((hop): Outcome => {
    const ip = addressOf(hop, resolved.familyTarget);
    if (typeof ip !== 'string') return ip;
    return {
      workload,
      ip,
      port: hop.port,
      weight: hop.weight,
      protocol: 'hbone',
      authority: { kind: 'fixed', text: `${service.hostname}:${target.port}` },
      expectedIdentities: identitiesOf(hop),
      inner,
    };
  });
  return shared(outcomes, share);
}

/** Divides a share among those that can be used, by their weights. */
function shared(outcomes: readonly Outcome[], share: number): Outcome[] {
  const total = outcomes.reduce((sum, outcome) => sum + ('tag' in outcome ? 0 : outcome.weight), 0);
  return outcomes.map((outcome) =>
    'tag' in outcome ? outcome : { ...outcome, weight: (share * outcome.weight) / total },
  );
}

function addressOf({ workload, service }: Upstream, familyTarget: string): string | OutboundRejection {
  const address = chooseAddress(workload, familyTarget, service?.ipFamilies ?? null);
  if (address.kind === 'ip') return address.ip;
  if (address.kind === 'hostname') return needsDnsResolution(workload);
  return noValidDestination(workload);
}

function identitiesOf({ workload, service }: Upstream): string[] {
  const own = identityOf(workload);
  if (service === null || service.subjectAltNames.length === 0) return [own];
  return [...new Set([own, ...service.subjectAltNames])].sort();
}

/**
 * Who may be at the end of an inner tunnel. Beyond a gateway one entry can stand for many pods, so the names of its
 * service count. Unlike the incumbent, which never reaches a service without names, the entry's own identity does when
 * there are none.
 */
function innerIdentities({ workload, service }: Upstream): string[] {
  const names = service?.subjectAltNames ?? [];
  return names.length === 0 ? [identityOf(workload)] : [...new Set(names)].sort();
}

function forward({ source }: Query, service: Service | null, outcomes: readonly Outcome[]): OutboundPlan {
  const usable = outcomes.filter((outcome): outcome is Candidate => !('tag' in outcome));
  if (usable.length === 0) return reject(outcomes.find((outcome) => 'tag' in outcome) as OutboundRejection);
  return {
    kind: 'forward',
    service: service && serviceLabels(service),
    source: workloadLabels(source),
    groups: groupsOf(usable),
  };
}

/** Puts those together that differ in their workload and its address only, in the order they came. */
function groupsOf(candidates: readonly Candidate[]): EndpointGroup[] {
  const groups = new Map<string, Mutable<EndpointGroup>>();
  for (const { workload, ip, ...shape } of candidates) {
    const { uid, name, ...destination } = workloadLabels(workload);
    const key = JSON.stringify([shape, destination]);
    let group = groups.get(key);
    if (group === undefined) {
      group = { ...shape, destination, uids: [], names: [], ips: [] };
      groups.set(key, group);
    }
    group.uids.push(uid);
    group.names.push(name);
    group.ips.push(ip);
  }
  return [...groups.values()];
}

type Mutable<Group extends EndpointGroup> = Omit<Group, 'uids' | 'names' | 'ips'> & {
  readonly uids: string[];
  readonly names: string[];
  readonly ips: string[];
};

/** Plain TCP to where the client wanted to go; the mesh knows nothing of the destination. */
function passthrough({ source, target }: Query): OutboundPlan {
  const group: EndpointGroup = {
    protocol: 'tcp',
    port: target.port,
    authority: null,
    weight: 1,
    expectedIdentities: [],
    inner: null,
    destination: null,
    uids: [''],
    names: [''],
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

function noValidDestination(workload: Workload): OutboundRejection {
  return { tag: 'no-valid-destination', message: `no valid routing destination for workload: ${workload.name}` };
}

function unknownGateway(gateway: GatewayAddress, hasService: boolean): OutboundRejection {
  const why = hasService ? `: no endpoint of it takes port ${gateway.hboneMtlsPort}` : '';
  return { tag: 'unknown-gateway', message: `network gateway ${gatewayName(gateway)} not found${why}` };
}

function needsDnsResolution(workload: Workload): OutboundRejection {
  return {
    tag: 'needs-dns-resolution',
    message:
      `no ip addresses were resolved for workload: ${workload.uid} ` +
      `(it is known only by the name ${workload.hostname}, which this version does not resolve)`,
  };
}

import { formatSocketAddress, type SocketAddress } from '../netns/address.ts';
import type { MeshState } from '../state/mesh-state.ts';
import { type GatewayAddress, identityOf, type Service, type Workload } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';
import { gatewayName, isFromWaypoint, resolveWaypoint, waypointsOf } from './gateway.ts';
import { serviceLabels, workloadLabels } from './labels.ts';
import { loadBalance, type Upstream } from './load-balance.ts';
import type { OutboundPlan, OutboundRejection, PlannedEndpoint } from './plan.ts';
import { unknownLocalWorkload } from './unknown-local-workload.ts';
import { chooseAddress } from './workload-ip.ts';

/**
 * Where connections of a pod to an address go (spec §3.2). Pure: the same state gives the same plan; the random choice
 * among the endpoints is left to pickEndpoint.
 *
 * Endpoints that cannot be used are left out as long as one can; only when none is left does the plan reject, with the
 * reason of the first. Unlike the incumbent a service's waypoint is skipped for connections that come out of that waypoint.
 *
 * @param target original destination, canonical
 * @param network name of this agent's network
 * @param peerIp canonical source address of the connection, which tells a waypoint's own connections
 */
export function planOutbound(
  mesh: MeshState,
  pod: PodInfo,
  target: SocketAddress,
  network: string,
  peerIp: string,
): OutboundPlan {
  const source = mesh.localWorkload(pod);
  if (source === null) return reject(unknownLocalWorkload(pod));
  const query: Query = { mesh, source, target, peerIp };

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
        waypoints.flatMap(({ waypoint, weight }) => toWaypoint(query, waypoint, weight)),
      );
    }
  }

  const upstreams = findUpstreams(query);
  if (upstreams === null) return passthrough(query);
  if (upstreams.length === 0) return reject(noHealthyUpstream(target));
  const outcomes = upstreams.flatMap((upstream) => toUpstream(query, upstream, service !== null));
  return forward(query, service ?? upstreams[0]!.service, outcomes);
}

/** Where HBONE is served in every pod. */
const HBONE_PORT = 15008;

interface Query {
  readonly mesh: MeshState;
  readonly source: Workload;
  readonly target: SocketAddress;
  readonly peerIp: string;
}

/** What became of one candidate. */
type Outcome = PlannedEndpoint | OutboundRejection;

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

function toUpstream(query: Query, upstream: Upstream, serviceAddressed: boolean): Outcome[] {
  const { mesh, source, target, peerIp } = query;
  const { workload } = upstream;
  if (workload.network !== source.network) {
    // A tunnel through a gateway names the service addressed, so there has to be one.
    return [serviceAddressed ? beyondGateway(workload) : noServiceForTarget(target)];
  }
  const { waypoint } = workload;
  if (!serviceAddressed && waypoint !== null && !isFromWaypoint(mesh, source, waypoint, peerIp)) {
    return toWaypoint(query, waypoint, upstream.weight);
  }
  return [toWorkload(upstream, target.ip)];
}

function toWorkload(upstream: Upstream, familyTarget: string): Outcome {
  const { workload, port } = upstream;
  const ip = addressOf(upstream, familyTarget);
  if (typeof ip !== 'string') return ip;
  const tunnelled = workload.protocol === 'HBONE';
  return {
    uid: workload.uid,
    address: { ip, port: tunnelled ? HBONE_PORT : port },
    weight: upstream.weight,
    protocol: tunnelled ? 'hbone' : 'tcp',
    authority: tunnelled ? formatSocketAddress({ ip, port }) : '',
    expectedIdentities: tunnelled ? identitiesOf(upstream) : [],
    inner: null,
    destination: workloadLabels(workload),
  };
}

/** Tunnels to a waypoint carry the address the client asked for. `share` is spread over the waypoint's endpoints. */
function toWaypoint(query: Query, waypoint: GatewayAddress, share: number): Outcome[] {
  const { mesh, source, target } = query;
  const resolved = resolveWaypoint(mesh, source, waypoint, target.ip);
  if (resolved === null || resolved.upstreams.length === 0) return [unknownWaypoint(waypoint, resolved !== null)];
  const outcomes = resolved.upstreams.map((upstream): Outcome => {
    const { workload, port } = upstream;
    if (workload.network !== source.network) return beyondGateway(workload);
    const ip = addressOf(upstream, resolved.familyTarget);
    if (typeof ip !== 'string') return ip;
    return {
      uid: workload.uid,
      address: { ip, port },
      weight: upstream.weight,
      protocol: 'hbone',
      authority: formatSocketAddress(target),
      expectedIdentities: identitiesOf(upstream),
      inner: null,
      destination: workloadLabels(workload),
    };
  });
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

function forward({ source }: Query, service: Service | null, outcomes: readonly Outcome[]): OutboundPlan {
  const endpoints = outcomes.filter((outcome): outcome is PlannedEndpoint => !('tag' in outcome));
  if (endpoints.length === 0) return reject(outcomes.find((outcome) => 'tag' in outcome) as OutboundRejection);
  return {
    kind: 'forward',
    service: service && serviceLabels(service),
    source: workloadLabels(source),
    endpoints,
  };
}

/** Plain TCP to where the client wanted to go; the mesh knows nothing of the destination. */
function passthrough({ source, target }: Query): OutboundPlan {
  const endpoint: PlannedEndpoint = {
    uid: '',
    address: target,
    weight: 1,
    protocol: 'tcp',
    authority: '',
    expectedIdentities: [],
    inner: null,
    destination: null,
  };
  return { kind: 'forward', service: null, source: workloadLabels(source), endpoints: [endpoint] };
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

/** A workload on another network. */
function beyondGateway(workload: Workload): OutboundRejection {
  if (workload.networkGateway === null) return noValidDestination(workload);
  return {
    tag: 'needs-double-hbone',
    message:
      `workload ${workload.uid} is on network "${workload.network}", reachable only through its gateway ` +
      `${gatewayName(workload.networkGateway)} by double HBONE, which this version does not speak`,
  };
}

function needsDnsResolution(workload: Workload): OutboundRejection {
  return {
    tag: 'needs-dns-resolution',
    message:
      `no ip addresses were resolved for workload: ${workload.uid} ` +
      `(it is known only by the name ${workload.hostname}, which this version does not resolve)`,
  };
}

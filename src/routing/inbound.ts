import { isIpv4, type SocketAddress } from '../netns/address.ts';
import type { RouteState } from '../state/recorded-reads.ts';
import { type Service, splitNetworkAddress, type Workload } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';
import { type Authority, parseAuthority } from './authority.ts';
import { isWaypointOf } from './gateway.ts';
import { serviceLabels, workloadLabels } from './labels.ts';
import type { InboundPlan, InboundRejection } from './plan.ts';
import { unknownLocalWorkload } from './unknown-local-workload.ts';

/** One CONNECT request, as far as routing is concerned. IPs are canonical. */
export interface InboundHboneRequest {
  /** The pod's address the tunnel was opened to. */
  readonly localIp: string;
  readonly peerIp: string;
  /** `:authority`, as sent */
  readonly authority: string;
  /** `host=` of the `forwarded` header */
  readonly forwardedHost: string | null;
  /** `x-forwarded-network` */
  readonly fromNetwork: string | null;
}

/**
 * What a CONNECT request on 15008 leads to (spec §4.2, steps 2 to 6). Pure. Policy is not asked here.
 *
 * @param network name of this agent's network
 * @param illegalPorts ports of the agent itself, which no tunnel may lead to
 */
export function planInboundHbone(
  mesh: RouteState,
  pod: PodInfo,
  request: InboundHboneRequest,
  network: string,
  illegalPorts: ReadonlySet<number>,
): InboundPlan {
  const authority = parseAuthority(request.authority);
  if (authority === null) return reject(400, 'bad-authority', `no valid authority pseudo header: ${request.authority}`);
  const local = mesh.localWorkload(pod);
  if (local === null) return { kind: 'reject', status: 503, reason: unknownLocalWorkload(pod) };
  if (authority.kind === 'address' && !isOurs(mesh, local, request.localIp, authority.address.ip, network)) {
    const message = `ip mismatch: ${request.localIp} != ${authority.address.ip}`;
    return reject(400, 'ip-mismatch', message);
  }

  const resolved = resolve(mesh, local, authority, network);
  if ('kind' in resolved) return resolved;
  const target = { ip: request.localIp, port: resolved.port };
  if (illegalPorts.has(target.port)) return selfCall();

  // Behind a gateway the peer's address is the gateway's, or one that only means something on its own network.
  const isForeign = request.fromNetwork !== null && request.fromNetwork.toLowerCase() !== network.toLowerCase();
  const source = isForeign ? null : mesh.workloadByAddress(network, request.peerIp);
  const services = servicesOf(mesh, local);
  const service =
    resolved.service ??
    services.find(({ hostname }) => hostname === request.forwardedHost) ??
    servicedBy(services, local, target.port);
  return {
    kind: 'deliver',
    target,
    source: source && workloadLabels(source),
    destination: workloadLabels(local),
    service: service && serviceLabels(service),
    appTunnel: resolved.proxyDestination && { protocol: 'PROXY', destination: resolved.proxyDestination },
  };
}

/** What a connection on 15006 leads to (spec §2.5). Pure. Policy is not asked here. */
export function planInboundPlaintext(
  mesh: RouteState,
  pod: PodInfo,
  request: { readonly peerIp: string; readonly originalDestination: SocketAddress },
  network: string,
  illegalPorts: ReadonlySet<number>,
): InboundPlan {
  const target = request.originalDestination;
  if (illegalPorts.has(target.port)) return selfCall();
  const local = mesh.localWorkload(pod);
  if (local === null) return { kind: 'reject', status: 503, reason: unknownLocalWorkload(pod) };
  const source = mesh.workloadByAddress(network, request.peerIp);
  const service = servicedBy(servicesOf(mesh, local), local, target.port);
  return {
    kind: 'deliver',
    target,
    source: source && workloadLabels(source),
    destination: workloadLabels(local),
    service: service && serviceLabels(service),
    appTunnel: null,
  };
}

interface Resolved {
  readonly port: number;
  /** The service named by a hostname authority. */
  readonly service: Service | null;
  /** What goes into the PROXY header; null without one. */
  readonly proxyDestination: SocketAddress | null;
}

function resolve(mesh: RouteState, local: Workload, authority: Authority, network: string): Resolved | InboundPlan {
  const tunnel = local.applicationTunnel;
  const wantsProxy = tunnel?.protocol === 'PROXY';
  if (authority.kind === 'address') {
    const { address } = authority;
    return {
      port: tunnel?.port ?? address.port,
      service: null,
      proxyDestination: wantsProxy ? address : null,
    };
  }

  const { hostname, port } = authority;
  const service = mesh.serviceByHostname(hostname, local.namespace);
  if (service === null) {
    return reject(503, 'unknown-hostname', `no service or workload for hostname: ${hostname}`);
  }
  const targetPort = service.endpoints.get(local.uid)?.port[port] || service.ports[port];
  if (!targetPort) {
    const message = `requested service ${hostname}:${port} found, but cannot resolve port`;
    return reject(503, 'unresolvable-port', message);
  }
  const vip = wantsProxy ? bestVip(service, network) : null;
  if (wantsProxy && vip === null) {
    const message = `requested service ${hostname} found, but has no IP addresses`;
    return reject(503, 'service-without-address', message);
  }
  return { port: tunnel?.port ?? targetPort, service, proxyDestination: vip === null ? null : { ip: vip, port } };
}

/** The address is the pod's own, or that of something the pod is a waypoint of. Tunnelled applications check themselves. */
function isOurs(mesh: RouteState, local: Workload, localIp: string, ip: string, network: string): boolean {
  if (ip === localIp || local.applicationTunnel !== null) return true;
  const workload = mesh.workloadByAddress(network, ip);
  const service = workload === null ? mesh.serviceByVip(network, ip, local.namespace) : null;
  const weighted = service?.weightedWaypoints ?? [];
  const waypoints = [(workload ?? service)?.waypoint ?? null, ...weighted.map(({ destination }) => destination)];
  return waypoints.some((waypoint) => waypoint !== null && isWaypointOf(mesh, local, localIp, waypoint));
}

function servicesOf(mesh: RouteState, workload: Workload): Service[] {
  return workload.services.map((key) => mesh.service(key)).filter((service) => service !== null);
}

/**
 * A service that leads to this port of the workload: a Kubernetes service rather than the host of a ServiceEntry that
 * merely selects its pods, the first one among equals.
 */
function servicedBy(services: readonly Service[], workload: Workload, port: number): Service | null {
  const leading = services.filter(
    ({ ports, endpoints }) =>
      Object.values(ports).includes(port) || Object.values(endpoints.get(workload.uid)?.port ?? {}).includes(port),
  );
  const isKubernetes = ({ hostname, name, namespace }: Service) => hostname.startsWith(`${name}.${namespace}.svc.`);
  return leading.find(isKubernetes) ?? leading[0] ?? null;
}

/** A VIP of this network rather than another's, and IPv4 rather than IPv6. */
function bestVip(service: Service, network: string): string | null {
  let best: string | null = null;
  let bestRank = -1;
  for (const vip of service.vips.map(splitNetworkAddress)) {
    const rank = (vip.network === network ? 2 : 0) + (isIpv4(vip.ip) ? 1 : 0);
    if (rank > bestRank) [best, bestRank] = [vip.ip, rank];
  }
  return best;
}

function selfCall(): InboundPlan {
  return reject(503, 'self-call', 'attempted recursive call to ourselves');
}

function reject(status: 400 | 503, tag: InboundRejection['tag'], message: string): InboundPlan {
  return { kind: 'reject', status, reason: { tag, message } };
}

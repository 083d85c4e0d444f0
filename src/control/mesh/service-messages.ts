/** Service and ServiceEntry → `istio.workload.Service` (control-01 §4). */
import { canonicalIp, formatIp, parseCidr } from '../../netns/address.ts';
import type { Namespace } from '../objects/namespace.ts';
import type { Service } from '../objects/service.ts';
import type { ServiceEntry } from '../objects/service-entry.ts';
import { appProtocolOf, protocolOf } from './app-protocol.ts';
import { allowAll, distributionOf, type LoadBalancingSource, loadBalancingOf } from './load-balancing.ts';
import type { GatewayAddress, IpFamilies, NetworkAddress, ServiceMessage, Visibility } from './messages.ts';

/** What a service has from elsewhere. */
export interface ServiceContext {
  readonly hostname: string;
  readonly network: string;
  readonly namespace: Namespace | null;
  readonly isCanonical: boolean;
  readonly visibility: Visibility;
  readonly waypoint: GatewayAddress | null;
  readonly weightedWaypoints: ServiceMessage['weightedWaypoints'];
  readonly ingressUseWaypoint: boolean;
}

export function messageOfService(service: Service, context: ServiceContext): ServiceMessage {
  const { isCanonical, visibility, waypoint, weightedWaypoints, ingressUseWaypoint } = context;
  const source: LoadBalancingSource = {
    isNodeLocal: service.isNodeLocal,
    distribution: distributionOf(service.trafficDistribution, service.annotations, context.namespace),
  };
  const loadBalancing = loadBalancingOf(source);
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: context.hostname,
    // An address that is none is left out: the others still lead to the service.
    addresses: service.clusterIps.flatMap((ip) => networkAddress(context.network, canonicalIp(ip))),
    ports: service.ports.map((port) => ({
      port: port.port,
      target: typeof port.target === 'number' ? port.target : 0,
      protocol: appProtocolOf(port),
    })),
    subjectAltNames: [],
    waypoint,
    weightedWaypoints,
    loadBalancing: service.publishNotReady ? allowAll(loadBalancing) : loadBalancing,
    ipFamilies: ipFamiliesOf(service.ipFamilies),
    isCanonical,
    ingressUseWaypoint,
    visibility,
  };
}

/** @param allocated addresses for the host, if the entry gives none itself */
export function messageOfServiceEntry(
  entry: ServiceEntry,
  allocated: readonly string[],
  context: ServiceContext,
): ServiceMessage {
  const { network, isCanonical, visibility, waypoint, weightedWaypoints, ingressUseWaypoint } = context;
  const distribution = distributionOf('', entry.annotations, context.namespace);
  return {
    name: entry.name,
    namespace: entry.namespace,
    hostname: context.hostname,
    addresses:
      entry.addresses.length > 0
        ? addressesOf(entry, network)
        : allocated.flatMap((ip) => networkAddress(network, canonicalIp(ip))),
    ports: entry.ports.map(({ number, target, protocol }) => ({
      port: number,
      target,
      protocol: protocolOf(protocol),
    })),
    subjectAltNames: entry.subjectAltNames,
    waypoint,
    weightedWaypoints,
    loadBalancing:
      entry.resolution === 'NONE'
        ? { preference: [], mode: 'passthrough', healthPolicy: 'AllowAll' }
        : loadBalancingOf({ isNodeLocal: false, distribution }),
    ipFamilies: 'automatic',
    isCanonical,
    ingressUseWaypoint,
    visibility,
  };
}

/** Whether each address of the entry is one; with one that is none the entry is not published at all. */
export function hasUsableAddresses(entry: ServiceEntry): boolean {
  return entry.addresses.every((address) => parseCidr(address) !== null);
}

function addressesOf({ addresses }: ServiceEntry, network: string): NetworkAddress[] {
  return addresses.flatMap((address) => {
    const cidr = parseCidr(address);
    if (cidr === null) return [];
    const isSingle = cidr.length === (cidr.family === 4 ? 32 : 128);
    return [{ network, ip: formatIp(cidr), length: isSingle ? null : cidr.length }];
  });
}

function networkAddress(network: string, ip: string | null): NetworkAddress[] {
  return ip === null ? [] : [{ network, ip, length: null }];
}

function ipFamiliesOf(families: readonly string[]): IpFamilies {
  if (families.length === 2) return 'dual';
  return families[0] === 'IPv4' ? 'ipv4' : families[0] === 'IPv6' ? 'ipv6' : 'automatic';
}

/** What runs somewhere → `istio.workload.Workload` (control-01 §2, §3). */
import { canonicalIp } from '../../netns/address.ts';
import type { EndpointSlice } from '../objects/endpoint-slice.ts';
import { keyOf, type Labels } from '../objects/metadata.ts';
import type { Locality } from '../objects/node.ts';
import type { Pod } from '../objects/pod.ts';

import type { EntryEndpoint, ServiceEntry } from '../objects/service-entry.ts';
import type { WorkloadEntry } from '../objects/workload-entry.ts';
import type { NetworkGateway } from './gateway-registry.ts';
import type { ApplicationTunnel, GatewayAddress, TargetPort, Tunnel, WorkloadMessage } from './messages.ts';
import type { PublishedService } from './published-services.ts';

/** What a workload has from elsewhere. */
export interface WorkloadContext {
  readonly clusterId: string;
  /** "" when it is cluster.local, which is what agents take it for then. */
  readonly trustDomain: string;
  readonly network: string;
  readonly services: readonly PublishedService[];
  readonly policies: readonly string[];
  readonly waypoint: GatewayAddress | null;
  readonly applicationTunnel: ApplicationTunnel | null;
  readonly networkGateway: GatewayAddress | null;
}

export function podUid(clusterId: string, pod: string): string {
  return `${clusterId}//Pod/${pod}`;
}

/** Null for a pod that has ended, or has no address yet. */
export function messageOfPod(pod: Pod, locality: Locality | null, context: WorkloadContext): WorkloadMessage | null {
  if (pod.isTerminal || pod.ips.length === 0) return null;
  return {
    ...common(context),
    ...canonicalNames(pod.labels, pod.workloadName),
    uid: podUid(context.clusterId, keyOf(pod)),
    name: pod.name,
    namespace: pod.namespace,
    addresses: pod.ips,
    tunnel: tunnelOf(pod.labels, pod.isRedirected),
    serviceAccount: pod.serviceAccount,
    node: pod.node,
    isPod: true,
    workloadName: pod.workloadName,
    services: portsOf(context.services, (service) => portsOfPod(service, pod)),
    isHealthy: pod.isHealthy,
    locality: locality !== null && Object.values(locality).some((part) => part !== '') ? locality : null,
    hostNetwork: pod.hostNetwork,
  };
}

export function messageOfWorkloadEntry(entry: WorkloadEntry, context: WorkloadContext): WorkloadMessage {
  return {
    ...common(context),
    ...canonicalNames(entry.labels, entry.workloadName),
    ...endpointFields(entry.endpoint),
    uid: `${context.clusterId}/networking.istio.io/WorkloadEntry/${keyOf(entry)}`,
    name: entry.name,
    namespace: entry.namespace,
    tunnel: tunnelOf(entry.labels, entry.isRedirected),
    isPod: true,
    workloadName: entry.workloadName,
    services: portsOf(context.services, (service) => portsOfWorkloadEntry(service, entry)),
  };
}

export function endpointUid(clusterId: string, entry: ServiceEntry, address: string): string {
  return `${clusterId}/networking.istio.io/ServiceEntry/${keyOf(entry)}/${address}`;
}

/** An endpoint that a ServiceEntry lists, or the one that is meant when it lists none: the host itself. */
export function messageOfServiceEntryEndpoint(
  entry: ServiceEntry,
  endpoint: EntryEndpoint,
  context: WorkloadContext,
): WorkloadMessage {
  return {
    ...common(context),
    ...canonicalNames(entry.labels, entry.name),
    ...endpointFields(endpoint),
    uid: endpointUid(context.clusterId, entry, endpoint.address),
    name: entry.name,
    namespace: entry.namespace,
    tunnel: tunnelOf(entry.labels, entry.isRedirected),
    isPod: true,
    workloadName: entry.name,
    services: portsOf(context.services, () => portsOfServiceEntry(entry, endpoint.ports)),
  };
}

/** Endpoints of a slice that are no pods: the API server, machines outside of the cluster. */
export function messagesOfEndpointSlice(slice: EndpointSlice, context: WorkloadContext): WorkloadMessage[] {
  const services = portsOf(context.services, (service) => portsOfSlice(service, slice));
  return slice.others.map(({ ip, isReady }) => ({
    ...common(context),
    canonicalName: '',
    canonicalRevision: '',
    uid: `${context.clusterId}/discovery.k8s.io/EndpointSlice/${keyOf(slice)}/${ip}`,
    name: slice.name,
    namespace: slice.namespace,
    addresses: [ip],
    tunnel: 'none',
    serviceAccount: '',
    isPod: false,
    workloadName: '',
    services,
    isHealthy: isReady,
    // Its address may be shared, also with pods of the host's network.
    hostNetwork: true,
  }));
}

function common(context: WorkloadContext) {
  return {
    clusterId: context.clusterId,
    trustDomain: context.trustDomain,
    network: context.network,
    policies: context.policies,
    waypoint: context.waypoint,
    applicationTunnel: context.applicationTunnel,
    networkGateway: context.networkGateway,
    hostname: '',
    node: '',
    locality: null as Locality | null,
    capacity: null as number | null,
    hostNetwork: false,
  };
}

function endpointFields({ address, locality, weight, serviceAccount }: EntryEndpoint) {
  const ip = canonicalIp(address);
  const [region = '', zone = '', subzone = ''] = locality.split('/');
  return {
    addresses: ip === null ? [] : [ip],
    hostname: ip === null ? address : '',
    serviceAccount,
    capacity: weight > 0 ? weight : null,
    locality: locality === '' ? null : { region, zone, subzone },
    isHealthy: true,
  };
}

function canonicalNames(labels: Labels, workloadName: string) {
  return {
    canonicalName:
      firstOf(labels, ['service.istio.io/canonical-name', 'app.kubernetes.io/name', 'app']) ?? workloadName,
    canonicalRevision:
      firstOf(labels, ['service.istio.io/canonical-revision', 'app.kubernetes.io/version', 'version']) ?? 'latest',
  };
}

function firstOf(labels: Labels, names: readonly string[]): string | undefined {
  const name = names.find((each) => labels[each] !== undefined);
  return name === undefined ? undefined : labels[name];
}

function tunnelOf(labels: Labels, isRedirected: boolean): Tunnel {
  if (labels['networking.istio.io/tunnel']?.split(',').includes('http')) return 'native';
  return isRedirected ? 'hbone' : 'none';
}

type Ports = readonly TargetPort[];

function portsOf(
  services: readonly PublishedService[],
  ports: (service: PublishedService) => Ports,
): Map<string, Ports> {
  return new Map(services.map((service) => [service.key, ports(service)]));
}

/** @param named the workload's own ports, which go by the names of the entry's */
function portsOfServiceEntry({ ports }: ServiceEntry, named: Readonly<Record<string, number>>): Ports {
  return ports.map(({ number, name, target }) => ({ port: number, target: own(named, name) ?? target }));
}

function portsOfPod(service: PublishedService, pod: Pod): Ports {
  if (service.kind === 'ServiceEntry') return portsOfServiceEntry(service.object, pod.ports);
  return service.object.ports.flatMap(({ port, target }) => {
    const number = typeof target === 'number' ? target : own(pod.ports, target);
    return number === undefined ? [] : [{ port, target: number }];
  });
}

function portsOfWorkloadEntry(service: PublishedService, { endpoint }: WorkloadEntry): Ports {
  if (service.kind === 'ServiceEntry') return portsOfServiceEntry(service.object, endpoint.ports);
  return service.object.ports.flatMap(({ port, name, target }) => {
    const number = typeof target === 'number' ? (own(endpoint.ports, name) ?? target) : own(endpoint.ports, target);
    return number === undefined ? [] : [{ port, target: number }];
  });
}

function portsOfSlice(service: PublishedService, slice: EndpointSlice): Ports {
  if (service.kind !== 'Service') return [];
  return service.object.ports.flatMap(({ name, port }) => {
    const target = slice.ports.find((each) => each.name === name);
    return target === undefined ? [] : [{ port, target: target.port }];
  });
}

/** Of the record itself, and not what every object inherits. */
function own(ports: Readonly<Record<string, number>>, name: string): number | undefined {
  return Object.hasOwn(ports, name) ? ports[name] : undefined;
}

/** A gateway of another network, as what its certificate is checked against. */
export function messageOfNetworkGateway(gateway: NetworkGateway, trustDomain: string): WorkloadMessage {
  const { network, namespace, serviceAccount, ip, hostname, port } = gateway;
  const name = `NetworkGateway/${network}/${ip || hostname}/${port}`;
  return {
    ...common({
      clusterId: '',
      trustDomain,
      network,
      policies: [],
      services: [],
      waypoint: null,
      applicationTunnel: null,
      networkGateway: null,
    }),
    uid: name,
    name,
    namespace,
    serviceAccount,
    addresses: ip === '' ? [] : [ip],
    hostname,
    tunnel: 'none',
    canonicalName: '',
    canonicalRevision: '',
    workloadName: '',
    isPod: false,
    isHealthy: true,
    services: new Map(),
  };
}

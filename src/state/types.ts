/**
 * What the mesh consists of: workloads, services, endpoints and policies, as plain data that can cross threads.
 *
 * Names and values are those of the incumbent's config dump and local file (spec §9.7, §9.8, §14.4), so that a dump is
 * these objects with the defaults left out. IPs are canonical text (src/netns/address.ts).
 */

/** `namespace/hostname`; names a service. */
export type ServiceKey = string;
/** `namespace/name`; names a policy. */
export type PolicyKey = string;
/** `network/ip`; the network may be empty. Networks are compared as text. */
export type NetworkAddress = string;
/** Service port → target port. A target of 0 is a named port, which only an endpoint can resolve. */
export type PortMap = Readonly<Record<number, number>>;

export interface Workload {
  readonly uid: string;
  /** The pod's name. */
  readonly name: string;
  readonly namespace: string;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly network: string;
  readonly workloadIps: readonly string[];
  /** Name to resolve when there are no addresses; '' otherwise. */
  readonly hostname: string;
  readonly protocol: 'HBONE' | 'TCP';
  readonly networkMode: 'Standard' | 'HostNetwork';
  readonly node: string;
  /** Name of the controller: deployment, cron job, … */
  readonly workloadName: string;
  /** `deployment`, `cronjob`, `pod`, `job`, or '' */
  readonly workloadType: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
  readonly locality: Locality;
  readonly status: HealthStatus;
  /** Load balancing weight; 0 is never picked. */
  readonly capacity: number;
  readonly waypoint: GatewayAddress | null;
  readonly networkGateway: GatewayAddress | null;
  readonly applicationTunnel: ApplicationTunnel | null;
  readonly nativeTunnel: boolean;
  readonly authorizationPolicies: readonly PolicyKey[];
  /** The services this workload says it is an endpoint of, sorted. The ports are with the service's endpoints. */
  readonly services: readonly ServiceKey[];
}

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

export type HealthStatus = 'Healthy' | 'Unhealthy';

export interface ApplicationTunnel {
  readonly protocol: 'NONE' | 'PROXY';
  /** null: the port of the request is kept */
  readonly port: number | null;
}

/** A waypoint or a network gateway. */
export interface GatewayAddress {
  readonly destination: GatewayDestination;
  readonly hboneMtlsPort: number;
}

export type GatewayDestination =
  | { readonly kind: 'address'; readonly network: string; readonly ip: string }
  | { readonly kind: 'hostname'; readonly namespace: string; readonly hostname: string };

export interface WeightedWaypoint {
  readonly destination: GatewayAddress;
  readonly weight: number;
}

/** A service as its source describes it. */
export interface ServiceDefinition {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly vips: readonly NetworkAddress[];
  readonly cidrVips: readonly CidrVip[];
  readonly ports: PortMap;
  /** SPIFFE ids any endpoint may present besides its own. */
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | null;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancer: LoadBalancer | null;
  readonly ipFamilies: 'Dual' | 'IPv4' | 'IPv6' | null;
  readonly canonical: boolean;
  readonly visibility: 'Public' | 'Namespace';
}

/** A service with the endpoints its workloads gave it. Unhealthy ones are there only when `healthPolicy` is AllowAll. */
export interface Service extends ServiceDefinition {
  readonly endpoints: ReadonlyMap<string, Endpoint>;
}

export interface CidrVip {
  readonly network: string;
  /** `ip/length`, masked */
  readonly cidr: string;
}

export interface Endpoint {
  readonly workloadUid: string;
  readonly port: PortMap;
  readonly status: HealthStatus;
}

export type RoutingScope = 'Region' | 'Zone' | 'Subzone' | 'Node' | 'Cluster' | 'Network';

export interface LoadBalancer {
  readonly routingPreferences: readonly RoutingScope[];
  readonly mode: 'Standard' | 'Strict' | 'Failover' | 'Passthrough';
  readonly healthPolicy: 'OnlyHealthy' | 'AllowAll';
}

export function serviceKey(service: { readonly namespace: string; readonly hostname: string }): ServiceKey {
  return `${service.namespace}/${service.hostname}`;
}

export function networkAddress(network: string, ip: string): NetworkAddress {
  return `${network}/${ip}`;
}

/** Takes `network/ip` apart at the last slash. */
export function splitNetworkAddress(address: NetworkAddress): { network: string; ip: string } {
  const slash = address.lastIndexOf('/');
  return { network: address.slice(0, slash), ip: address.slice(slash + 1) };
}

/** `network/ip` or `namespace/hostname`, as dumps and the local file write it. */
export function formatGatewayDestination(destination: GatewayDestination): string {
  return destination.kind === 'address'
    ? networkAddress(destination.network, destination.ip)
    : `${destination.namespace}/${destination.hostname}`;
}

/** `cluster//Pod/namespace/name`: the part that is the pod's name, as a rule. */
export function nameInUid(uid: string): string {
  return uid.slice(uid.lastIndexOf('/') + 1);
}

/** The SPIFFE id a workload's certificate carries (spec §8.1). */
export function identityOf(workload: {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}): string {
  return `spiffe://${workload.trustDomain}/ns/${workload.namespace}/sa/${workload.serviceAccount}`;
}

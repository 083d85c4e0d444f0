/** `istio.workload.Address`: a workload or a service, as the control plane sends it (spec §9.7). */
import { cidrFromBytes, formatCidr, ipFromBytes } from '../netns/address.ts';
import type { WorkloadUpdate } from '../state/mesh-state.ts';
import {
  type ApplicationTunnel,
  type CidrVip,
  type GatewayAddress,
  type GatewayDestination,
  type LoadBalancer,
  type Locality,
  networkAddress,
  type PortMap,
  type RoutingScope,
  type ServiceDefinition,
  type ServiceKey,
  type WeightedWaypoint,
} from '../state/types.ts';
import {
  endOf,
  type Reader,
  readBytes,
  readFields,
  readFlag,
  readMessage,
  readNumber,
  readNumbers,
  readText,
} from './wire.ts';

export type Address =
  | { readonly kind: 'workload'; readonly update: WorkloadUpdate }
  | { readonly kind: 'service'; readonly definition: ServiceDefinition };

/**
 * Reads an Address that starts where the reader is.
 * @throws Error that says what cannot be used: an unknown enumeration value, an address of a wrong length …
 */
export function readAddress(reader: Reader, end: number): Address {
  let address: Address | null = null;
  readFields(reader, end, (field, wireType) => {
    if (field === 1) address = { kind: 'workload', update: readWorkload(reader, endOf(reader, wireType)) };
    else if (field === 2) address = { kind: 'service', definition: readService(reader, endOf(reader, wireType)) };
    else return false;
    return true;
  });
  if (address === null) throw new Error('neither a workload nor a service');
  return address;
}

function readWorkload(reader: Reader, end: number): WorkloadUpdate {
  const workload: Mutable<WorkloadUpdate['workload']> = {
    uid: '',
    name: '',
    namespace: '',
    trustDomain: '',
    serviceAccount: '',
    network: '',
    workloadIps: [],
    hostname: '',
    protocol: 'TCP',
    networkMode: 'Standard',
    node: '',
    workloadName: '',
    workloadType: 'deployment',
    canonicalName: '',
    canonicalRevision: '',
    clusterId: '',
    locality: NO_LOCALITY,
    status: 'Healthy',
    capacity: 1,
    waypoint: null,
    networkGateway: null,
    applicationTunnel: null,
    nativeTunnel: false,
    authorizationPolicies: [],
  };
  const ips: string[] = [];
  const policies: string[] = [];
  const services: Record<ServiceKey, PortMap> = {};
  readFields(reader, end, (field, wireType) => {
    switch (field) {
      case 1:
        workload.name = readText(reader, wireType);
        break;
      case 2:
        workload.namespace = readText(reader, wireType);
        break;
      case 3:
        ips.push(ipOf(readBytes(reader, wireType)));
        break;
      case 4:
        workload.network = readText(reader, wireType);
        break;
      case 5:
        workload.protocol = named(TUNNEL_PROTOCOLS, readNumber(reader, wireType), 'tunnel protocol');
        break;
      case 6:
        workload.trustDomain = readText(reader, wireType);
        break;
      case 7:
        workload.serviceAccount = readText(reader, wireType);
        break;
      case 8:
        workload.waypoint = readGateway(reader, wireType);
        break;
      case 9:
        workload.node = readText(reader, wireType);
        break;
      case 10:
        workload.canonicalName = readText(reader, wireType);
        break;
      case 11:
        workload.canonicalRevision = readText(reader, wireType);
        break;
      case 12:
        workload.workloadType = named(WORKLOAD_TYPES, readNumber(reader, wireType), 'workload type');
        break;
      case 13:
        workload.workloadName = readText(reader, wireType);
        break;
      case 14:
        workload.nativeTunnel = readFlag(reader, wireType);
        break;
      case 16:
        policies.push(readText(reader, wireType));
        break;
      case 17:
        workload.status = named(HEALTH, readNumber(reader, wireType), 'workload status');
        break;
      case 18:
        workload.clusterId = readText(reader, wireType);
        break;
      case 19:
        workload.networkGateway = readGateway(reader, wireType);
        break;
      case 20:
        workload.uid = readText(reader, wireType);
        break;
      case 21:
        workload.hostname = readText(reader, wireType);
        break;
      case 22:
        readServicePorts(reader, wireType, services);
        break;
      case 23:
        workload.applicationTunnel = readApplicationTunnel(reader, wireType);
        break;
      case 24:
        workload.locality = readLocality(reader, wireType);
        break;
      case 25:
        workload.networkMode = named(NETWORK_MODES, readNumber(reader, wireType), 'network mode');
        break;
      case 27:
        workload.capacity = readWrappedNumber(reader, wireType);
        break;
      default:
        return false;
    }
    return true;
  });
  if (workload.uid === '') throw new Error('a workload without a uid');
  workload.workloadIps = ips;
  workload.authorizationPolicies = policies;
  // proto3 does not send what is the default, and these are the defaults of the incumbent (spec §9.7).
  workload.trustDomain ||= 'cluster.local';
  workload.serviceAccount ||= 'default';
  workload.clusterId ||= 'Kubernetes';
  return { workload, services };
}

function readService(reader: Reader, end: number): ServiceDefinition {
  const service: Mutable<ServiceDefinition> = {
    name: '',
    namespace: '',
    hostname: '',
    vips: [],
    cidrVips: [],
    ports: {},
    subjectAltNames: [],
    waypoint: null,
    weightedWaypoints: [],
    loadBalancer: null,
    ipFamilies: null,
    canonical: false,
    visibility: 'Public',
  };
  const vips: string[] = [];
  const cidrVips: CidrVip[] = [];
  const ports: Record<number, number> = {};
  const names: string[] = [];
  const weighted: WeightedWaypoint[] = [];
  readFields(reader, end, (field, wireType) => {
    switch (field) {
      case 1:
        service.name = readText(reader, wireType);
        break;
      case 2:
        service.namespace = readText(reader, wireType);
        break;
      case 3:
        service.hostname = readText(reader, wireType);
        break;
      case 4: {
        const { network, bytes, length } = readNetworkAddress(reader, wireType);
        if (length === null || length === bytes.length * 8) vips.push(networkAddress(network, ipOf(bytes)));
        else cidrVips.push({ network, cidr: blockOf(bytes, length) });
        break;
      }
      case 5:
        readPort(reader, wireType, ports);
        break;
      case 6:
        names.push(readText(reader, wireType));
        break;
      case 7:
        service.waypoint = readGateway(reader, wireType);
        break;
      case 8:
        service.loadBalancer = readLoadBalancer(reader, wireType);
        break;
      case 9:
        service.ipFamilies = named(IP_FAMILIES, readNumber(reader, wireType), 'IP families');
        break;
      case 11:
        service.canonical = readFlag(reader, wireType);
        break;
      case 13:
        weighted.push(readWeightedWaypoint(reader, wireType));
        break;
      case 14:
        service.visibility = readNumber(reader, wireType) === 1 ? 'Namespace' : 'Public';
        break;
      default:
        return false;
    }
    return true;
  });
  if (service.hostname === '') throw new Error('a service without a hostname');
  return Object.assign(service, { vips, cidrVips, ports, subjectAltNames: names, weightedWaypoints: weighted });
}

/** An entry of the map `namespace/hostname` → ports. */
function readServicePorts(reader: Reader, wireType: number, services: Record<ServiceKey, PortMap>): void {
  let key = '';
  const ports: Record<number, number> = {};
  readMessage(reader, wireType, (field, entryType) => {
    if (field === 1) key = readText(reader, entryType);
    else if (field === 2) {
      readMessage(reader, entryType, (inner, innerType) => {
        if (inner !== 1) return false;
        readPort(reader, innerType, ports);
        return true;
      });
    } else return false;
    return true;
  });
  if (!key.includes('/')) throw new Error(`a service named ${JSON.stringify(key)}, not namespace/hostname`);
  services[key] = ports;
}

function readPort(reader: Reader, wireType: number, ports: Record<number, number>): void {
  let [service, target] = [0, 0];
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) service = portOf(readNumber(reader, innerType));
    else if (field === 2) target = portOf(readNumber(reader, innerType));
    else return false;
    return true;
  });
  ports[service] = target;
}

function readGateway(reader: Reader, wireType: number): GatewayAddress {
  let destination: GatewayDestination | null = null;
  let hboneMtlsPort = 0;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) destination = readNamespacedHostname(reader, innerType);
    else if (field === 2) {
      const { network, bytes } = readNetworkAddress(reader, innerType);
      destination = { kind: 'address', network, ip: ipOf(bytes) };
    } else if (field === 3) hboneMtlsPort = portOf(readNumber(reader, innerType));
    else return false;
    return true;
  });
  if (destination === null) throw new Error('a gateway without a destination');
  return { destination, hboneMtlsPort };
}

function readNamespacedHostname(reader: Reader, wireType: number): GatewayDestination {
  let [namespace, hostname] = ['', ''];
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) namespace = readText(reader, innerType);
    else if (field === 2) hostname = readText(reader, innerType);
    else return false;
    return true;
  });
  return { kind: 'hostname', namespace, hostname };
}

/** `length` is null when it is not said. */
function readNetworkAddress(reader: Reader, wireType: number) {
  let network = '';
  let bytes: Uint8Array = NOTHING;
  let length: number | null = null;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) network = readText(reader, innerType);
    else if (field === 2) bytes = readBytes(reader, innerType);
    else if (field === 3) length = readNumber(reader, innerType);
    else return false;
    return true;
  });
  return { network, bytes, length: length as number | null };
}

function readWeightedWaypoint(reader: Reader, wireType: number): WeightedWaypoint {
  let destination: GatewayAddress | null = null;
  let weight = 0;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) destination = readGateway(reader, innerType);
    else if (field === 2) weight = readNumber(reader, innerType);
    else return false;
    return true;
  });
  if (destination === null) throw new Error('a weighted waypoint without a destination');
  return { destination, weight };
}

function readLoadBalancer(reader: Reader, wireType: number): LoadBalancer {
  const scopes: number[] = [];
  let mode: LoadBalancer['mode'] = 'Standard';
  let healthPolicy: LoadBalancer['healthPolicy'] = 'OnlyHealthy';
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) readNumbers(reader, innerType, scopes);
    else if (field === 2) mode = named(MODES, readNumber(reader, innerType), 'load balancing mode');
    else if (field === 3) healthPolicy = named(HEALTH_POLICIES, readNumber(reader, innerType), 'health policy');
    else return false;
    return true;
  });
  return { routingPreferences: scopes.map((scope) => named(SCOPES, scope, 'routing preference')), mode, healthPolicy };
}

function readApplicationTunnel(reader: Reader, wireType: number): ApplicationTunnel {
  let protocol: ApplicationTunnel['protocol'] = 'NONE';
  let port = 0;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) protocol = named(TUNNEL_KINDS, readNumber(reader, innerType), 'application tunnel');
    else if (field === 2) port = portOf(readNumber(reader, innerType));
    else return false;
    return true;
  });
  return { protocol, port: port === 0 ? null : port };
}

function readLocality(reader: Reader, wireType: number): Locality {
  const locality = { region: '', zone: '', subzone: '' };
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) locality.region = readText(reader, innerType);
    else if (field === 2) locality.zone = readText(reader, innerType);
    else if (field === 3) locality.subzone = readText(reader, innerType);
    else return false;
    return true;
  });
  return locality;
}

/** google.protobuf.UInt32Value: 0 is left out inside, but not the message. */
function readWrappedNumber(reader: Reader, wireType: number): number {
  let value = 0;
  readMessage(reader, wireType, (field, innerType) => {
    if (field !== 1) return false;
    value = readNumber(reader, innerType);
    return true;
  });
  return value;
}

function ipOf(bytes: Uint8Array): string {
  const ip = ipFromBytes(bytes);
  if (ip === null) throw new Error(`failed to parse address, had ${bytes.length} bytes`);
  return ip;
}

function blockOf(bytes: Uint8Array, length: number): string {
  const cidr = cidrFromBytes(bytes, length);
  if (cidr === null) throw new Error(`an address of ${bytes.length} bytes with a prefix of ${length} bits`);
  return formatCidr(cidr);
}

function portOf(port: number): number {
  if (port > 65535) throw new Error(`port ${port}`);
  return port;
}

/** The name of an enumeration value; it is not guessed what an unknown one means. */
function named<const T>(names: readonly (T | undefined)[], value: number, what: string): T {
  const name = names[value];
  if (name === undefined) throw new Error(`unknown ${what} ${value}`);
  return name;
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

const NOTHING = new Uint8Array();
const NO_LOCALITY: Locality = Object.freeze({ region: '', zone: '', subzone: '' });

// In the order of their numbers.
const TUNNEL_PROTOCOLS = ['TCP', 'HBONE'] as const;
const WORKLOAD_TYPES = ['deployment', 'cronjob', 'pod', 'job'] as const;
const HEALTH = ['Healthy', 'Unhealthy'] as const;
const NETWORK_MODES = ['Standard', 'HostNetwork'] as const;
const TUNNEL_KINDS = ['NONE', 'PROXY'] as const;
const IP_FAMILIES = [null, 'IPv4', 'IPv6', 'Dual'] as const;
const MODES = ['Standard', 'Strict', 'Failover', 'Passthrough'] as const;
const HEALTH_POLICIES = ['OnlyHealthy', 'AllowAll'] as const;
const SCOPES: readonly (RoutingScope | undefined)[] = [
  undefined,
  'Region',
  'Zone',
  'Subzone',
  'Node',
  'Cluster',
  'Network',
];

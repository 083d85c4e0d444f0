/** `istio.workload.Service` (spec §9.7). */
import { cidrFromBytes, formatCidr } from '../netns/address.ts';
import {
  type CidrVip,
  type GatewayAddress,
  type LoadBalancer,
  networkAddress,
  type RoutingScope,
  type ServiceDefinition,
  type WeightedWaypoint,
} from '../state/types.ts';
import { ipOf, named, readGateway, readNetworkAddress, readPort } from './address-parts.ts';
import { readRepeatedText } from './repeated.ts';
import { type Reader, readFields, readFlag, readMessage, readNumber, readNumbers, readText } from './wire.ts';

export function readService(reader: Reader, end: number): ServiceDefinition {
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
        service.namespace = readRepeatedText(reader, wireType);
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

function blockOf(bytes: Uint8Array, length: number): string {
  const cidr = cidrFromBytes(bytes, length);
  if (cidr === null) throw new Error(`an address of ${bytes.length} bytes with a prefix of ${length} bits`);
  return formatCidr(cidr);
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

// In the order of their numbers.
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

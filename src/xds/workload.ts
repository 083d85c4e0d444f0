/** `istio.workload.Workload` (spec §9.7). */

import { ipFromBytes } from '../netns/address.ts';
import type { WorkloadUpdate } from '../state/mesh-state.ts';
import { PlainWorkload } from '../state/plain-workload.ts';
import type { ApplicationTunnel, Locality, PortMap, ServiceKey } from '../state/types.ts';
import { portMaps } from '../state/workload-profile.ts';
import { ipOf, named, portOf, readGateway, readPort } from './address-parts.ts';
import { AlikeWorkloads, WorkloadParts } from './alike.ts';
import { Repeated, readRepeatedText, repeatedTextUpTo } from './repeated.ts';
import { endOf, type Reader, readFields, readFlag, readMessage, readNumber, readText, textUpTo } from './wire.ts';

/** Reads a workload up to `end`, where the reader is then. @throws Error what of it cannot be used */
export function readWorkload(reader: Reader, end: number): WorkloadUpdate {
  const start = reader.pos;
  if (!PARTS.split(reader.buf, start, end)) return readFully(reader, end);
  const known = ALIKE.find(PARTS);
  const update = known === undefined ? null : readOwn(reader, end, known);
  if (update !== null) return update;
  reader.pos = start;
  const first = { ...readFully(reader, end), profile: { id: -1, found: null } };
  ALIKE.add(PARTS, first);
  return first;
}

/** Lets go of what is held of workloads to read others like them sooner. */
export function forgetAlike(): void {
  ALIKE.clear();
}

/**
 * A workload of which PARTS are the parts, where `known` differs from it in what is its own only; null when something of
 * that cannot be used.
 */
function readOwn(reader: Reader, end: number, { workload, services, profile }: WorkloadUpdate): WorkloadUpdate | null {
  const { addresses } = PARTS;
  const status = HEALTH[Math.max(PARTS.status, 0)];
  if (status === undefined || PARTS.uidStart === PARTS.uidEnd) return null;
  if (PARTS.hasOneIpv4 && PARTS.isNameInUid(reader.buf)) {
    const ipv4 = PARTS.ipv4(reader.buf);
    reader.pos = PARTS.uidStart;
    const uid = textUpTo(reader, PARTS.uidEnd);
    const node = nodeName(reader);
    reader.pos = end;
    return { workload: new PlainWorkload(workload, uid, node, ipv4, status), services, profile: profile!, ipv4 };
  }
  let ips: string[] | null = null;
  for (let at = 0; at < 2 * PARTS.addressCount; at += 2) {
    const ip = ipFromBytes(reader.buf, addresses[at]!, addresses[at + 1]!);
    if (ip === null) return null;
    ips = appended(ips, ip);
  }
  reader.pos = PARTS.nameStart;
  const name = textUpTo(reader, PARTS.nameEnd);
  reader.pos = PARTS.uidStart;
  const uid = textUpTo(reader, PARTS.uidEnd);
  const node = nodeName(reader);
  reader.pos = end;
  return {
    workload: { ...workload, uid, name, node, workloadIps: ips ?? NO_NAMES, status },
    services,
    profile: profile!,
  };
}

function nodeName(reader: Reader): string {
  reader.pos = PARTS.nodeStart;
  return repeatedTextUpTo(reader, PARTS.nodeEnd);
}

function readFully(reader: Reader, end: number): WorkloadUpdate {
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
  let ips: string[] | null = null;
  let policies: string[] | null = null;
  let services: Services = NO_SERVICES;
  let own: Record<ServiceKey, PortMap> | null = null;
  readFields(reader, end, (field, wireType) => {
    switch (field) {
      case 1:
        workload.name = readText(reader, wireType);
        break;
      case 2:
        workload.namespace = readRepeatedText(reader, wireType);
        break;
      case 3:
        {
          const until = endOf(reader, wireType);
          ips = appended(ips, ipOf(reader.buf, reader.pos, until));
          reader.pos = until;
        }
        break;
      case 4:
        workload.network = readRepeatedText(reader, wireType);
        break;
      case 5:
        workload.protocol = named(TUNNEL_PROTOCOLS, readNumber(reader, wireType), 'tunnel protocol');
        break;
      case 6:
        workload.trustDomain = readRepeatedText(reader, wireType);
        break;
      case 7:
        workload.serviceAccount = readRepeatedText(reader, wireType);
        break;
      case 8:
        workload.waypoint = readGateway(reader, wireType);
        break;
      case 9:
        workload.node = readRepeatedText(reader, wireType);
        break;
      case 10:
        workload.canonicalName = readRepeatedText(reader, wireType);
        break;
      case 11:
        workload.canonicalRevision = readRepeatedText(reader, wireType);
        break;
      case 12:
        workload.workloadType = named(WORKLOAD_TYPES, readNumber(reader, wireType), 'workload type');
        break;
      case 13:
        workload.workloadName = readRepeatedText(reader, wireType);
        break;
      case 14:
        workload.nativeTunnel = readFlag(reader, wireType);
        break;
      case 16:
        policies = appended(policies, readRepeatedText(reader, wireType));
        break;
      case 17:
        workload.status = named(HEALTH, readNumber(reader, wireType), 'workload status');
        break;
      case 18:
        workload.clusterId = readRepeatedText(reader, wireType);
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
      case 22: {
        const { key, ports, alone } = SERVICE_PORTS.take(reader, endOf(reader, wireType));
        // Most workloads are in one service and share what says so; a copy per service would take quadratic time.
        if (services === NO_SERVICES) services = alone;
        else {
          if (own === null) services = own = { ...services };
          own[key] = ports;
        }
        break;
      }
      case 23:
        workload.applicationTunnel = readApplicationTunnel(reader, wireType);
        break;
      case 24:
        workload.locality = LOCALITIES.take(reader, endOf(reader, wireType));
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
  workload.workloadIps = ips ?? NO_NAMES;
  workload.authorizationPolicies = policies ?? NO_NAMES;
  // proto3 does not send what is the default, and these are the defaults of the incumbent (spec §9.7).
  workload.trustDomain ||= 'cluster.local';
  workload.serviceAccount ||= 'default';
  workload.clusterId ||= 'Kubernetes';
  return { workload, services };
}

/** The ports that a workload has in one service. */
interface ServicePorts {
  readonly key: ServiceKey;
  readonly ports: PortMap;
  /** What is known of a workload that is in this service alone, as most are. */
  readonly alone: Services;
}

type Services = WorkloadUpdate['services'];

/** An entry of the map `namespace/hostname` → ports. */
function readServicePorts(reader: Reader, end: number): ServicePorts {
  let key = '';
  const ports: Record<number, number> = {};
  readFields(reader, end, (field, wireType) => {
    if (field === 1) key = readText(reader, wireType);
    else if (field === 2) {
      readMessage(reader, wireType, (inner, innerType) => {
        if (inner !== 1) return false;
        readPort(reader, innerType, ports);
        return true;
      });
    } else return false;
    return true;
  });
  if (!key.includes('/')) throw new Error(`a service named ${JSON.stringify(key)}, not namespace/hostname`);
  const known = portMaps.of(ports);
  return { key, ports: known, alone: { [key]: known } };
}

/** Nearly always of one, which takes less than what grows. */
function appended(list: string[] | null, item: string): string[] {
  if (list === null) return [item];
  list.push(item);
  return list;
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

function readLocality(reader: Reader, end: number): Locality {
  const locality = { region: '', zone: '', subzone: '' };
  readFields(reader, end, (field, wireType) => {
    if (field === 1) locality.region = readText(reader, wireType);
    else if (field === 2) locality.zone = readText(reader, wireType);
    else if (field === 3) locality.subzone = readText(reader, wireType);
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

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

const SERVICE_PORTS = new Repeated(readServicePorts);
const LOCALITIES = new Repeated(readLocality);

const PARTS = new WorkloadParts();
const ALIKE = new AlikeWorkloads();

const NO_NAMES: readonly string[] = [];
const NO_SERVICES: Services = {};
const NO_LOCALITY: Locality = Object.freeze({ region: '', zone: '', subzone: '' });

// In the order of their numbers.
const TUNNEL_PROTOCOLS = ['TCP', 'HBONE'] as const;
const WORKLOAD_TYPES = ['deployment', 'cronjob', 'pod', 'job'] as const;
const HEALTH = ['Healthy', 'Unhealthy'] as const;
const NETWORK_MODES = ['Standard', 'HostNetwork'] as const;
const TUNNEL_KINDS = ['NONE', 'PROXY'] as const;

import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { annotation, type Labels, type Metadata, readMetadata } from './metadata.ts';
import { type ReportedConditions, readConditions } from './reported-conditions.ts';
import { type RoutingAnnotations, readRoutingAnnotations } from './service.ts';
import { sharedData } from './shared.ts';

export interface ServiceEntry extends Metadata {
  readonly hosts: readonly string[];
  /** As given: addresses and CIDR blocks. */
  readonly addresses: readonly string[];
  readonly ports: readonly ServiceEntryPort[];
  readonly resolution: (typeof RESOLUTIONS)[number];
  readonly endpoints: readonly EntryEndpoint[];
  /** Empty: selects nothing. */
  readonly workloadSelector: Labels;
  readonly hasWorkloadSelector: boolean;
  readonly subjectAltNames: readonly string[];
  readonly annotations: RoutingAnnotations;
  readonly isRedirected: boolean;
  /** Allocated before, by whoever writes the status. */
  readonly allocated: readonly HostAddress[];
  readonly reported: ReportedConditions;
}

export interface HostAddress {
  readonly host: string;
  readonly value: string;
}

export interface ServiceEntryPort {
  readonly number: number;
  readonly name: string;
  readonly protocol: string;
  readonly target: number;
}

/** An endpoint of a ServiceEntry, or what a WorkloadEntry says. */
export interface EntryEndpoint {
  /** An IP address, a hostname, or "". */
  readonly address: string;
  readonly ports: Readonly<Record<string, number>>;
  readonly labels: Labels;
  /** "" for that of the cluster. */
  readonly network: string;
  readonly locality: string;
  readonly weight: number;
  readonly serviceAccount: string;
}

/**
 * What the resources of one object may take, in bytes. Each host is served with all ports, addresses and subjectAltNames, and
 * each endpoint with all hosts and their ports, so that an object of 160 KB could ask for hundreds of megabytes.
 */
const LARGEST = 16_000_000;

const NOTHING: Readonly<Record<string, never>> = Object.freeze({});

const RESOLUTIONS = ['NONE', 'STATIC', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'] as const;

export const SERVICE_ENTRIES: Kind<ServiceEntry> = {
  kind: 'ServiceEntry',
  group: 'networking.istio.io',
  version: 'v1',
  plural: 'serviceentries',
  namespaced: true,
  optional: true,
  read: readServiceEntry,
};

function readServiceEntry(object: unknown): ServiceEntry {
  const entry = Field.of(object);
  const spec = entry.at('spec');
  const given = spec.at('resolution');
  const resolution = RESOLUTIONS.find((known) => known === (given.text() || 'NONE'));
  if (resolution === undefined) throw given.wrong(`one of ${RESOLUTIONS.join(', ')}`);
  const selector = spec.at('workloadSelector');
  const hosts = spec.at('hosts').list().map(readHost);
  const endpoints = spec.at('endpoints').list().map(readEntryEndpoint);
  const addresses = spec.at('addresses').texts();
  const ports = spec.at('ports').list().map(readPort);
  const subjectAltNames = spec.at('subjectAltNames').texts();
  const size = sizeOfResources({ hosts, addresses, ports, endpoints, subjectAltNames });
  if (size > LARGEST) {
    const lists = Object.entries({ hosts, addresses, ports, endpoints, subjectAltNames });
    const found = lists.flatMap(([name, { length }]) => (length === 0 ? [] : [`${length} ${name}`])).join(', ');
    const [megabytes, most] = [Math.ceil(size / 1e6), LARGEST / 1e6];
    throw new Error(
      `spec asks for ${megabytes} MB of resources, by ${found}: make several of it, of ${most} MB at most each`,
    );
  }
  return {
    ...readMetadata(entry),
    hosts,
    addresses,
    ports,
    resolution,
    endpoints,
    workloadSelector: sharedData(selector.at('labels').labels()),
    hasWorkloadSelector: selector.isPresent,
    subjectAltNames,
    annotations: readRoutingAnnotations(entry),
    isRedirected: annotation(entry, 'ambient.istio.io/redirection') === 'enabled',
    allocated: readAllocated(object),
    reported: readConditions(entry),
  };
}

type Multiplied = Pick<ServiceEntry, 'hosts' | 'addresses' | 'ports' | 'endpoints' | 'subjectAltNames'>;

/** Roughly: serialized, and what they are found by. In bytes. */
function sizeOfResources({ hosts, addresses, ports, endpoints, subjectAltNames }: Multiplied): number {
  const ofPorts = 12 * ports.length;
  const ofNames = subjectAltNames.reduce((sum, name) => sum + 4 + name.length, 0);
  const perHost = 200 + ofPorts + 100 * addresses.length + ofNames;
  const perPair = 64 + ofPorts;
  const characters = hosts.reduce((sum, host) => sum + host.length, 0);
  return hosts.length * (perHost + endpoints.length * perPair) + characters * (1 + endpoints.length);
}

/** @throws Error when the name could not be told from the rest of a resource's name */
function readHost(host: Field): string {
  const name = host.text();
  if (!/^[^\s/]+$/.test(name)) throw host.wrong('a hostname');
  return name;
}

export function readEntryEndpoint(endpoint: Field): EntryEndpoint {
  const ports = endpoint.at('ports');
  const labels = endpoint.at('labels');
  return {
    address: endpoint.at('address').text(),
    ports: ports.isPresent
      ? sharedData(Object.fromEntries(ports.names().map((name) => [name, ports.at(name).port() ?? 0])))
      : NOTHING,
    labels: labels.isPresent ? sharedData(labels.labels()) : NOTHING,
    network: endpoint.at('network').text(),
    locality: endpoint.at('locality').text(),
    weight: endpoint.at('weight').integer(0, 0xffff_ffff) ?? 0,
    serviceAccount: endpoint.at('serviceAccount').text(),
  };
}

function readPort(port: Field): ServiceEntryPort {
  const number = port.at('number').integer(1, 65535);
  if (number === null) throw port.at('number').wrong('a port');
  return {
    number,
    name: port.at('name').text(),
    protocol: port.at('protocol').text(),
    target: port.at('targetPort').port() || number,
  };
}

/** What others wrote may have any shape: it is read without complaint. */
function readAllocated(object: unknown): HostAddress[] {
  const { addresses } = (object as { status?: { addresses?: unknown } }).status ?? {};
  if (!Array.isArray(addresses)) return [];
  return addresses.flatMap((each: Partial<HostAddress> | null) =>
    typeof each?.value === 'string' && typeof each.host === 'string' ? [{ host: each.host, value: each.value }] : [],
  );
}

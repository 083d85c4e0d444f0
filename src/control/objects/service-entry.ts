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

/** Each endpoint is served with a list of all hosts; an object of 1.5 MB could ask for hundreds of millions of pairs. */
const MOST_PAIRS = 100_000;

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
  if (hosts.length * endpoints.length > MOST_PAIRS) {
    const found = `${hosts.length} hosts with ${endpoints.length} endpoints each`;
    throw new Error(`spec has ${found}: make several of it, of ${MOST_PAIRS} pairs at most each`);
  }
  return {
    ...readMetadata(entry),
    hosts,
    addresses: spec.at('addresses').texts(),
    ports: spec.at('ports').list().map(readPort),
    resolution,
    endpoints,
    workloadSelector: sharedData(selector.at('labels').labels()),
    hasWorkloadSelector: selector.isPresent,
    subjectAltNames: spec.at('subjectAltNames').texts(),
    annotations: readRoutingAnnotations(entry),
    isRedirected: annotation(entry, 'ambient.istio.io/redirection') === 'enabled',
    allocated: readAllocated(object),
    reported: readConditions(entry),
  };
}

/** @throws Error when the name could not be told from the rest of a resource's name */
function readHost(host: Field): string {
  const name = host.text();
  if (!/^[^\s/]+$/.test(name)) throw host.wrong('a hostname');
  return name;
}

export function readEntryEndpoint(endpoint: Field): EntryEndpoint {
  const ports = endpoint.at('ports');
  return {
    address: endpoint.at('address').text(),
    ports: Object.fromEntries(ports.names().map((name) => [name, ports.at(name).port() ?? 0])),
    labels: sharedData(endpoint.at('labels').labels()),
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

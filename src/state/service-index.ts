import { isDeepStrictEqual } from 'node:util';
import { CidrIndex } from './cidr-index.ts';
import { EndpointView } from './endpoint-view.ts';
import {
  type Endpoint,
  type NetworkAddress,
  networkAddress,
  type Service,
  type ServiceDefinition,
  type ServiceKey,
  serviceKey,
} from './types.ts';
import { portMaps } from './workload-profile.ts';
import type { WorkloadTable } from './workload-table.ts';

/**
 * Services by key, hostname, VIP and CIDR VIP (spec §10.2). Their endpoints are what the workloads say.
 *
 * Every index points to one record per service, which an update changes in place: an index entry cannot go stale, and
 * an endpoint change touches no index.
 */
export class ServiceIndex {
  readonly #byKey = new Map<ServiceKey, Entry>();
  readonly #byHostname = new Map<string, Entry[]>();
  readonly #byVip = new Map<NetworkAddress, Entry[]>();
  readonly #byCidr = new Map<string, CidrIndex<Entry>>();
  readonly #workloads: WorkloadTable;

  constructor(workloads: WorkloadTable) {
    this.#workloads = workloads;
  }

  get(key: ServiceKey): Service | null {
    return this.#byKey.get(key)?.service ?? null;
  }

  *values(): IterableIterator<Service> {
    for (const entry of this.#byKey.values()) yield entry.service;
  }

  /** Endpoints that name a service which is not known (yet). */
  get staged(): ReadonlyMap<ServiceKey, ReadonlyMap<string, Endpoint>> {
    const staged = new Map<ServiceKey, ReadonlyMap<string, Endpoint>>();
    for (const key of this.#workloads.servicesNamed()) {
      if (!this.#byKey.has(key)) staged.set(key, new EndpointView(this.#workloads, key, () => true));
    }
    return staged;
  }

  byVip(network: string, ip: string, clientNamespace: string): Service | null {
    const exact = bestOf(this.#byVip.get(networkAddress(network, ip)) ?? [], clientNamespace);
    if (exact !== null) return exact;
    const cidrs = this.#byCidr.get(network);
    return cidrs === undefined ? null : bestByCidr(cidrs, ip, clientNamespace);
  }

  byHostname(hostname: string, clientNamespace: string, preferredNamespace?: string): Service | null {
    return bestOf(this.#byHostname.get(hostname) ?? [], clientNamespace, preferredNamespace);
  }

  insert(given: ServiceDefinition): void {
    const definition = { ...given, ports: portMaps.of(given.ports) };
    const key = serviceKey(definition);
    const entry = this.#byKey.get(key);
    if (entry === undefined) this.#create(key, definition);
    else this.#update(entry, definition);
  }

  /** Its endpoints stay with their workloads, in case it comes back. */
  remove(key: ServiceKey): void {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return;
    this.#byKey.delete(key);
    this.#unlink(entry, entry.service);
    removeFrom(this.#byHostname, entry.service.hostname, entry);
  }

  #create(key: ServiceKey, definition: ServiceDefinition): void {
    const entry: Entry = { service: { ...definition, endpoints: NONE } };
    const endpoints = new EndpointView(this.#workloads, key, () => takesUnhealthy(entry.service));
    entry.service = { ...definition, endpoints };
    this.#byKey.set(key, entry);
    this.#link(entry, entry.service);
    addTo(this.#byHostname, definition.hostname, entry);
  }

  #update(entry: Entry, definition: ServiceDefinition): void {
    const before = entry.service;
    entry.service = { ...definition, endpoints: before.endpoints };
    // Untouched addresses keep their place: the first service of an address wins among equals.
    if (isDeepStrictEqual([before.vips, before.cidrVips], [definition.vips, definition.cidrVips])) return;
    this.#unlink(entry, before);
    this.#link(entry, entry.service);
  }

  #link(entry: Entry, { vips, cidrVips }: Service): void {
    for (const vip of vips) addTo(this.#byVip, vip, entry);
    for (const { network, cidr } of cidrVips) this.#cidrsOf(network).add(cidr, entry);
  }

  #unlink(entry: Entry, { vips, cidrVips }: Service): void {
    for (const vip of vips) removeFrom(this.#byVip, vip, entry);
    for (const { network, cidr } of cidrVips) this.#cidrsOf(network).remove(cidr, entry);
    for (const { network } of cidrVips) if (this.#cidrsOf(network).isEmpty) this.#byCidr.delete(network);
  }

  #cidrsOf(network: string): CidrIndex<Entry> {
    const cidrs = this.#byCidr.get(network) ?? new CidrIndex<Entry>();
    this.#byCidr.set(network, cidrs);
    return cidrs;
  }
}

interface Entry {
  service: Service;
}

const NONE: ReadonlyMap<string, Endpoint> = new Map();

function takesUnhealthy(service: ServiceDefinition): boolean {
  return service.loadBalancer?.healthPolicy === 'AllowAll';
}

function isVisible(service: Service, clientNamespace: string): boolean {
  return service.visibility === 'Public' || service.namespace === clientNamespace;
}

/** Own namespace, else canonical, else the preferred namespace, else the first. */
function bestOf(entries: readonly Entry[], clientNamespace: string, preferredNamespace?: string): Service | null {
  let best: Service | null = null;
  let bestRank = -1;
  for (const { service } of entries) {
    if (!isVisible(service, clientNamespace)) continue;
    const rank =
      (service.namespace === clientNamespace ? 4 : 0) +
      (service.canonical ? 2 : 0) +
      (service.namespace === preferredNamespace ? 1 : 0);
    if (rank > bestRank) [best, bestRank] = [service, rank];
  }
  return best;
}

/** Own namespace, then prefix length, then canonical, in that order of weight. */
function bestByCidr(cidrs: CidrIndex<Entry>, ip: string, clientNamespace: string): Service | null {
  let best: Service | null = null;
  let bestRank = -1;
  cidrs.match(ip, ({ service }, length) => {
    if (!isVisible(service, clientNamespace)) return;
    const rank = (service.namespace === clientNamespace ? 1024 : 0) + length * 2 + (service.canonical ? 1 : 0);
    if (rank > bestRank) [best, bestRank] = [service, rank];
  });
  return best;
}

function addTo(index: Map<string, Entry[]>, key: string, entry: Entry): void {
  const entries = index.get(key);
  if (entries === undefined) index.set(key, [entry]);
  else if (!entries.includes(entry)) entries.push(entry);
}

function removeFrom(index: Map<string, Entry[]>, key: string, entry: Entry): void {
  const entries = index.get(key);
  const at = entries?.indexOf(entry) ?? -1;
  if (entries === undefined || at < 0) return;
  entries.splice(at, 1);
  if (entries.length === 0) index.delete(key);
}

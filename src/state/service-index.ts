import { isDeepStrictEqual } from 'node:util';
import { CidrIndex } from './cidr-index.ts';
import {
  type Endpoint,
  type NetworkAddress,
  networkAddress,
  type Service,
  type ServiceDefinition,
  type ServiceKey,
  serviceKey,
} from './types.ts';

/**
 * Services by key, hostname, VIP and CIDR VIP, with their endpoints (spec §10.2).
 *
 * Every index points to one record per service, which an update changes in place: an index entry cannot go stale, and
 * an endpoint change touches no index.
 */
export class ServiceIndex {
  readonly #byKey = new Map<ServiceKey, Entry>();
  readonly #byHostname = new Map<string, Entry[]>();
  readonly #byVip = new Map<NetworkAddress, Entry[]>();
  readonly #byCidr = new Map<string, CidrIndex<Entry>>();
  readonly #staged = new Map<ServiceKey, Map<string, Endpoint>>();

  get(key: ServiceKey): Service | null {
    return this.#byKey.get(key)?.service ?? null;
  }

  *values(): IterableIterator<Service> {
    for (const entry of this.#byKey.values()) yield entry.service;
  }

  get staged(): ReadonlyMap<ServiceKey, ReadonlyMap<string, Endpoint>> {
    return this.#staged;
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

  insert(definition: ServiceDefinition): void {
    const key = serviceKey(definition);
    const entry = this.#byKey.get(key);
    if (entry === undefined) this.#create(key, definition);
    else this.#update(entry, definition);
  }

  /** The endpoints wait, as those of a service that is not known yet, in case the service comes back. */
  remove(key: ServiceKey): void {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return;
    this.#byKey.delete(key);
    this.#unlink(entry, entry.service);
    removeFrom(this.#byHostname, entry.service.hostname, entry);
    const waiting = new Map([...entry.endpoints, ...entry.unhealthy]);
    if (waiting.size > 0) this.#staged.set(key, waiting);
  }

  endpoint(key: ServiceKey, uid: string): Endpoint | undefined {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return this.#staged.get(key)?.get(uid);
    return entry.endpoints.get(uid) ?? entry.unhealthy.get(uid);
  }

  setEndpoint(key: ServiceKey, endpoint: Endpoint): void {
    const entry = this.#byKey.get(key);
    if (entry !== undefined) {
      attach(entry, endpoint);
      return;
    }
    const waiting = this.#staged.get(key);
    if (waiting === undefined) this.#staged.set(key, new Map([[endpoint.workloadUid, endpoint]]));
    else waiting.set(endpoint.workloadUid, endpoint);
  }

  removeEndpoint(key: ServiceKey, uid: string): void {
    const entry = this.#byKey.get(key);
    if (entry !== undefined) {
      entry.endpoints.delete(uid);
      entry.unhealthy.delete(uid);
      return;
    }
    const waiting = this.#staged.get(key);
    waiting?.delete(uid);
    if (waiting?.size === 0) this.#staged.delete(key);
  }

  #create(key: ServiceKey, definition: ServiceDefinition): void {
    const endpoints = new Map<string, Endpoint>();
    const entry: Entry = { service: { ...definition, endpoints }, endpoints, unhealthy: new Map() };
    this.#byKey.set(key, entry);
    this.#link(entry, entry.service);
    addTo(this.#byHostname, definition.hostname, entry);
    for (const endpoint of this.#staged.get(key)?.values() ?? []) attach(entry, endpoint);
    this.#staged.delete(key);
  }

  #update(entry: Entry, definition: ServiceDefinition): void {
    const before = entry.service;
    entry.service = { ...definition, endpoints: entry.endpoints };
    // Untouched addresses keep their place: the first service of an address wins among equals.
    if (!isDeepStrictEqual([before.vips, before.cidrVips], [definition.vips, definition.cidrVips])) {
      this.#unlink(entry, before);
      this.#link(entry, entry.service);
    }
    if (takesUnhealthy(before) === takesUnhealthy(entry.service)) return;
    for (const endpoint of [...entry.endpoints.values(), ...entry.unhealthy.values()]) attach(entry, endpoint);
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
  /** The map that `service.endpoints` shows. */
  readonly endpoints: Map<string, Endpoint>;
  /** Endpoints held back because the service takes only healthy ones. */
  readonly unhealthy: Map<string, Endpoint>;
}

function takesUnhealthy(service: ServiceDefinition): boolean {
  return service.loadBalancer?.healthPolicy === 'AllowAll';
}

function attach({ service, endpoints, unhealthy }: Entry, endpoint: Endpoint): void {
  const usable = endpoint.status === 'Healthy' || takesUnhealthy(service);
  (usable ? unhealthy : endpoints).delete(endpoint.workloadUid);
  (usable ? endpoints : unhealthy).set(endpoint.workloadUid, endpoint);
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

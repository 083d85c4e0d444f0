/** Takes objects in: files them, and puts on the agenda what depends on what has changed of them. */
import { matchesLabels } from '../../kube/label-selector.ts';
import type { ObjectChange } from '../kinds.ts';
import type { AuthorizationPolicy } from '../objects/authorization-policy.ts';
import type { EndpointSlice } from '../objects/endpoint-slice.ts';
import type { Gateway, GatewayClass } from '../objects/gateway.ts';
import { keyOf, type Labels } from '../objects/metadata.ts';
import type { Namespace } from '../objects/namespace.ts';
import type { Locality, Node } from '../objects/node.ts';
import type { PeerAuthentication } from '../objects/peer-authentication.ts';
import type { Service } from '../objects/service.ts';
import type { ServiceEntry } from '../objects/service-entry.ts';
import type { WorkloadEntry } from '../objects/workload-entry.ts';
import { type Agenda, createAgenda } from './agenda.ts';
import { isSameForAllocation } from './allocation.ts';
import { GatewayRegistry, NETWORK_LABEL } from './gateway-registry.ts';
import { MultiMap } from './multi-map.ts';
import { PolicyRegistry } from './policy-registry.ts';
import { createPublishedServices, type PublishedService, type PublishedServices } from './published-services.ts';
import { SelectorIndex } from './selector-index.ts';
import { hasUsableAddresses } from './service-messages.ts';
import type { MeshSettings, Visibility } from './settings.ts';
import { createSources, type Source, type Sources } from './sources.ts';

export class MeshObjects {
  readonly agenda: Agenda = createAgenda();
  readonly sources: Sources = createSources();
  readonly gateways: GatewayRegistry;
  readonly policies: PolicyRegistry;
  readonly services: PublishedServices;
  readonly #settings: MeshSettings;
  readonly #namespaces = new Map<string, Namespace>();
  readonly #localities = new Map<string, Locality>();
  /** Selectors of services, by the service's key. */
  readonly #selectors = new SelectorIndex();
  readonly #servicesByNamespace = new MultiMap<string, string>();
  #network = '';

  constructor(settings: MeshSettings) {
    this.#settings = settings;
    this.gateways = new GatewayRegistry(this.agenda);
    this.policies = new PolicyRegistry(settings, this.agenda, this.sources);
    this.services = createPublishedServices(
      (key, before, after) => this.#serviceChanged(key, before, after),
      (key) => this.agenda.services.add(key),
    );
  }

  /** Of the cluster. */
  get network(): string {
    return this.#network;
  }

  namespace(name: string): Namespace | null {
    return this.#namespaces.get(name) ?? null;
  }

  locality(node: string): Locality | null {
    return this.#localities.get(node) ?? null;
  }

  *serviceEntries(): Generator<ServiceEntry> {
    for (const { object } of this.sources.ofKind('ServiceEntry')) if (object !== null) yield object as ServiceEntry;
  }

  /** Services of the namespace whose selectors match. */
  servicesSelecting(namespace: string, labels: Labels): PublishedService[] {
    return this.#selectors.matching(namespace, labels).map((key) => this.services.get(key)!);
  }

  apply({ kind, key, after }: ObjectChange): void {
    switch (kind.kind) {
      case 'Pod':
      case 'EndpointSlice':
        this.#setSource(kind.kind, key, after as Source['object']);
        break;
      case 'WorkloadEntry':
        this.#setSource(kind.kind, key, after as WorkloadEntry | null);
        break;
      case 'ServiceEntry':
        this.#setServiceEntry(key, after as ServiceEntry | null);
        break;
      case 'Service':
        this.#setService(key, after as Service | null);
        break;
      case 'Namespace':
        this.#setNamespace(key, after as Namespace | null);
        break;
      case 'Node':
        this.#setNode(key, after as Node | null);
        break;
      case 'Gateway':
        this.gateways.setGateway(key, after as Gateway | null);
        break;
      case 'GatewayClass':
        this.gateways.setClass(key, after as GatewayClass | null);
        break;
      case 'AuthorizationPolicy':
        this.policies.setAuthorization(key, after as AuthorizationPolicy | null);
        break;
      case 'PeerAuthentication':
        this.policies.setPeer(key, after as PeerAuthentication | null);
        break;
    }
  }

  #setSource(kind: Source['kind'], key: string, object: Source['object']): void {
    const before = this.sources.get(kind, key)?.object ?? null;
    const source = this.sources.put(kind, key, object);
    if (source === null) return;
    this.agenda.sources.add(source);
    if (source.kind === 'EndpointSlice') this.#slicePodsChanged(before as EndpointSlice | null, source.object);
  }

  /** Of a slice that is for another service now, all; else those that came or went. */
  #slicePodsChanged(before: EndpointSlice | null, after: EndpointSlice | null): void {
    const isSameService = before?.service === after?.service;
    for (const [slice, other] of [
      [before, after],
      [after, before],
    ]) {
      for (const [pod, uid] of slice?.pods ?? [])
        if (!isSameService || other?.pods.get(pod) !== uid) this.#touchPod(pod);
    }
  }

  #touchPod(key: string): void {
    const pod = this.sources.get('Pod', key);
    if (pod !== null) this.agenda.sources.add(pod);
  }

  #setServiceEntry(key: string, entry: ServiceEntry | null): void {
    const before = this.sources.get('ServiceEntry', key)?.object ?? null;
    if (!isSameForAllocation(before as ServiceEntry | null, entry)) this.agenda.allocation = true;
    this.#setSource('ServiceEntry', key, entry);
    this.agenda.targets = true;
    this.services.publish(`ServiceEntry ${key}`, entry === null ? [] : this.#publishedBy(entry));
  }

  /** One service per host. An entry with an address that is none is left out whole: it would catch other traffic than it says. */
  #publishedBy(entry: ServiceEntry): PublishedService[] {
    const visibility = visibilityOf(this.#settings, this.namespace(entry.namespace));
    if (visibility === 'None' || !hasUsableAddresses(entry)) return [];
    return [...new Set(entry.hosts)].map((hostname) => ({
      key: `${entry.namespace}/${hostname}`,
      hostname,
      kind: 'ServiceEntry',
      object: entry,
      selector: entry.workloadSelector,
      visibility,
    }));
  }

  #setService(key: string, service: Service | null): void {
    const hostname = service === null ? '' : `${service.name}.${service.namespace}.svc.${this.#settings.domainSuffix}`;
    const published: PublishedService[] =
      service === null
        ? []
        : [
            {
              key: `${service.namespace}/${hostname}`,
              hostname,
              kind: 'Service',
              object: service,
              selector: service.selector,
              visibility: 'Public',
            },
          ];
    this.services.publish(`Service ${key}`, published);
  }

  #serviceChanged(key: string, before: PublishedService | null, after: PublishedService | null): void {
    this.agenda.services.add(key);
    this.agenda.targets = true;
    if (after === null) this.#servicesByNamespace.delete(before!.object.namespace, key);
    else if (before === null) this.#servicesByNamespace.add(after.object.namespace, key);
    if (before !== null && after !== null && isSameForWorkloads(before, after)) return;
    const { namespace } = (after ?? before)!.object;
    if (after === null) this.#selectors.delete(key);
    else this.#selectors.set(key, namespace, after.selector);
    for (const service of [before, after]) if (service !== null) this.#touchWorkloadsOf(service);
  }

  #touchWorkloadsOf({ kind, object, selector }: PublishedService): void {
    if (Object.keys(selector).length > 0) this.#touch(this.sources.matching(object.namespace, selector));
    const objectKey = `${object.namespace}/${object.name}`;
    if (kind === 'ServiceEntry') {
      const source = this.sources.get('ServiceEntry', objectKey);
      if (source !== null) this.agenda.sources.add(source);
      return;
    }
    for (const slice of this.sources.slicesOf(objectKey)) {
      this.agenda.sources.add(slice);
      for (const pod of slice.object!.pods.keys()) this.#touchPod(pod);
    }
  }

  #setNamespace(name: string, after: Namespace | null): void {
    const before = this.namespace(name);
    if (after === null) this.#namespaces.delete(name);
    else this.#namespaces.set(name, after);
    if (isSame(before?.labels, after?.labels) && isSame(before?.annotations, after?.annotations)) return;
    if (name === this.#settings.systemNamespace) this.#setNetwork(after?.labels[NETWORK_LABEL] ?? '');
    if (this.#settings.serviceEntryVisibility !== null) this.#publishAnew(name);
    this.agenda.targets = true;
    this.#touch(this.sources.matching(name, {}));
    for (const key of this.#servicesByNamespace.get(name)) this.agenda.services.add(key);
  }

  #publishAnew(namespace: string): void {
    for (const source of [...this.sources.matching(namespace, {})]) {
      if (source.kind !== 'ServiceEntry' || source.object === null) continue;
      this.services.publish(`ServiceEntry ${keyOf(source.object)}`, this.#publishedBy(source.object));
    }
  }

  #setNetwork(network: string): void {
    if (network === this.#network) return;
    this.#network = network;
    this.gateways.setNetwork(network);
    this.agenda.networkGateways = true;
    this.agenda.everything = true;
  }

  #setNode(name: string, node: Node | null): void {
    if (isSame(this.locality(name), node?.locality)) return;
    if (node === null) this.#localities.delete(name);
    else this.#localities.set(name, node.locality);
    this.#touch(this.sources.podsOn(name));
  }

  #touch(sources: Iterable<Source>): void {
    for (const source of sources) this.agenda.sources.add(source);
  }
}

function visibilityOf(settings: MeshSettings, namespace: Namespace | null): Visibility {
  const { serviceEntryVisibility: given, namespacesHaveObjects } = settings;
  if (given === null) return 'Public';
  const { rules, otherwise } = given;
  if (namespace === null && namespacesHaveObjects) {
    // Rules that ask for labels not to be there would open it until its labels are known.
    const named = new Set([otherwise, ...rules.map(({ visibility }) => visibility)]);
    return NARROWEST_FIRST.find((visibility) => named.has(visibility))!;
  }
  const labels = namespace?.labels ?? {};
  return rules.find(({ namespaces }) => matchesLabels(namespaces, labels))?.visibility ?? otherwise;
}

const NARROWEST_FIRST: readonly Visibility[] = ['None', 'Namespace', 'Public'];

/** Whether workloads that serve one serve the other, at the same ports. */
function isSameForWorkloads(a: PublishedService, b: PublishedService): boolean {
  return (
    a.kind === b.kind &&
    a.object.name === b.object.name &&
    isSame(a.selector, b.selector) &&
    isSame(a.object.ports, b.object.ports)
  );
}

function isSame(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
}

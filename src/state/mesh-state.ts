/**
 * The mesh state as its readers see it (spec §10). One store per process holds it (store.ts); planners, policy compiler,
 * dump and DNS read it through this interface.
 */
import type { Policy } from '../policy/types.ts';
import type { PodInfo } from '../zds/types.ts';
import type { PackedMap } from './packed-map.ts';
import type { TextListBuilder } from './text-list.ts';
import type {
  CidrVip,
  Endpoint,
  PolicyKey,
  PortMap,
  Service,
  ServiceDefinition,
  ServiceKey,
  Workload,
} from './types.ts';
import type { WorkloadProfile } from './workload-profile.ts';

export interface MeshState {
  workload(uid: string): Workload | null;
  /** The workload that owns an address. Host-network workloads own none. */
  workloadByAddress(network: string, ip: string): Workload | null;
  /** The workload of that `hostname` in that namespace. */
  workloadByHostname(namespace: string, hostname: string): Workload | null;
  /** The pod's own workload: name, namespace and service account equal, on this node. */
  localWorkload(pod: PodInfo): Workload | null;
  /** Like localWorkload, but waits for it. Null after `timeoutMs` (default 5000). */
  waitForLocalWorkload(pod: PodInfo, timeoutMs?: number): Promise<Workload | null>;

  service(key: ServiceKey): Service | null;
  /** Best match of an exact VIP or else of a CIDR VIP, as seen from a namespace. */
  serviceByVip(network: string, ip: string, clientNamespace: string): Service | null;
  /**
   * Best match of a hostname over all namespaces, as seen from a namespace: own, then canonical, then the preferred
   * namespace when one is given, then the first.
   */
  serviceByHostname(hostname: string, clientNamespace: string, preferredNamespace?: string): Service | null;

  /**
   * Calls `visit` for each endpoint of the service that its health policy lets through, without making an object for each.
   * The endpoint is only valid within the call.
   */
  forEachEndpoint(service: Service, visit: (endpoint: Member) => void): void;

  policy(key: PolicyKey): Policy | null;
  /** Keys of the policies of scope Namespace in a namespace. */
  namespacePolicies(namespace: string): ReadonlySet<PolicyKey>;
  globalPolicies(): ReadonlySet<PolicyKey>;

  workloads(): IterableIterator<Workload>;
  services(): IterableIterator<Service>;
  policies(): IterableIterator<[PolicyKey, Policy]>;
  /** Endpoints whose service is not known (yet): service → uid → endpoint. */
  stagedEndpoints(): ReadonlyMap<ServiceKey, ReadonlyMap<string, Endpoint>>;
}

export interface MeshStore extends MeshState {
  /** For the one source that has versions of what it sent, by name: most of the names are the workloads'. Empty at first. */
  readonly versions: PackedMap;
  /** Applies a batch: upserts first, then removals. Subscribers are told once, after all of it is visible. */
  apply(changes: MeshUpdate): void;
  /**
   * Calls the listener once for every batch that changed anything. Returns the way to unsubscribe.
   *
   * @param readsTouched whether the listener looks at `touched` now. It costs more than the rest of a large batch, so it
   *   is left empty as long as nobody does.
   */
  subscribe(listener: (change: MeshChange) => void, readsTouched?: () => boolean): () => void;
}

/** One batch. Everything is optional. */
export interface MeshUpdate {
  readonly workloads?: Iterable<WorkloadUpdate>;
  readonly services?: Iterable<ServiceDefinition>;
  /** The key is the resource name the source gave, which is `namespace/name` for all known sources. */
  readonly policies?: Iterable<readonly [PolicyKey, Policy]>;
  readonly removedWorkloads?: Iterable<string>;
  readonly removedServices?: Iterable<ServiceKey>;
  readonly removedPolicies?: Iterable<PolicyKey>;
}

/** A workload and its port map in each of its services. `workload.services` is derived from the keys. */
export interface WorkloadUpdate {
  readonly workload: Omit<Workload, 'services'>;
  readonly services: Readonly<Record<ServiceKey, PortMap>>;
  /** One object for workloads that differ in no more than what each has for itself. */
  readonly profile?: FoundProfile;
  /** Its only address as a signed number, said only where the name is the one in the uid as well (nameInUid). */
  readonly ipv4?: number;
}

/** Where the store notes the profile of workloads that are alike, so that the next one's need not be looked for. */
export interface FoundProfile {
  id: number;
  found: WorkloadProfile | null;
}

/** A workload as one of the endpoints of a service. */
export interface Member {
  readonly uid: string;
  appendUid(to: TextListBuilder): void;
  /** null when it is nameInUid */
  readonly ownName: string | null;
  readonly node: string;
  readonly addresses: MemberAddresses;
  readonly isHealthy: boolean;
  /** What it has in common with others: the same object for all of them. */
  readonly profile: WorkloadProfile;
}

/** One address, one of IPv4 as a signed number, or the list of all. */
export type MemberAddresses = string | number | readonly string[];

/** What a batch changed; ask the state for what is there now. */
export interface MeshChange {
  readonly policies: ReadonlySet<PolicyKey>;
  /** The look-ups that may now answer otherwise, as readKeys (read-keys.ts) names them. */
  readonly touched: ReadonlySet<string>;
  /** Blocks of CIDR VIPs that came or went: look-ups of addresses inside may answer otherwise too. */
  readonly touchedBlocks: readonly CidrVip[];
}

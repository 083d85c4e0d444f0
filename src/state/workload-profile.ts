import { hash } from 'node:crypto';
import { Interned } from './interned.ts';
import type { WorkloadUpdate } from './mesh-state.ts';
import { addTo, type Rows, removeFrom } from './row-index.ts';
import type { GatewayAddress, Locality, PortMap, ServiceKey, Workload } from './types.ts';

/**
 * What the pods of one deployment in one zone have in common; held once for all of them. In a large mesh this is nearly
 * everything that is known of a workload.
 */
export interface WorkloadProfile extends Omit<Workload, OwnField> {
  /** By the position of each in `services`. */
  readonly ports: readonly PortMap[];
}

/** What each workload has for itself. */
type OwnField = 'uid' | 'name' | 'node' | 'workloadIps' | 'status';

/**
 * Equal profiles become one object, with a number; one that nobody has any more is dropped.
 *
 * Those of a deployment are few, and are found by a short key and compared. Where they are many, as when each endpoint
 * of a ServiceEntry has a weight of its own, those beyond the first are found by a digest of all they say.
 */
export class ProfileIndex {
  /** At most FEW for each key. */
  readonly #byKey = new Map<string, Rows>();
  readonly #byDigest = new Map<string, number>();
  readonly #profiles: (WorkloadProfile | null)[] = [];
  readonly #uses: number[] = [];
  readonly #free: number[] = [];
  readonly #localities = new Interned<Locality>(({ region, zone, subzone }) => JSON.stringify([region, zone, subzone]));

  get size(): number {
    return this.#profiles.length - this.#free.length;
  }

  at(id: number): WorkloadProfile {
    return this.#profiles[id]!;
  }

  /** The profile of a workload; has to be released as often as it was acquired. */
  acquire({ workload, services, profile }: WorkloadUpdate): number {
    if (profile !== undefined && profile.found !== null && this.#profiles[profile.id] === profile.found) {
      this.#uses[profile.id]!++;
      return profile.id;
    }
    const key = keyOf(workload);
    const alike = this.#byKey.get(key);
    const id = this.#find(alike, workload, services) ?? this.#findOrAdd(key, alike, workload, services);
    this.#uses[id]!++;
    if (profile !== undefined) {
      profile.id = id;
      profile.found = this.at(id);
    }
    return id;
  }

  release(id: number): void {
    if (--this.#uses[id]! > 0) return;
    const profile = this.at(id);
    const key = keyOf(profile);
    const alike = this.#byKey.get(key);
    if (alike === id || (Array.isArray(alike) && alike.includes(id))) removeFrom(this.#byKey, key, id);
    else this.#byDigest.delete(digestOf(profile));
    this.#profiles[id] = null;
    this.#free.push(id);
  }

  #find(alike: Rows | undefined, workload: WorkloadUpdate['workload'], services: WorkloadUpdate['services']) {
    if (alike === undefined) return undefined;
    if (typeof alike === 'number') return isSame(this.at(alike), workload, services) ? alike : undefined;
    for (const id of alike) if (isSame(this.at(id), workload, services)) return id;
    return undefined;
  }

  /** Of a profile that is not among those `alike`; it may be beyond them, whether or not they are few now. */
  #findOrAdd(
    key: string,
    alike: Rows | undefined,
    workload: WorkloadUpdate['workload'],
    services: WorkloadUpdate['services'],
  ): number {
    const like = alike === undefined ? null : this.at(typeof alike === 'number' ? alike : alike[0]!);
    const profile = profileOf(workload, services, this.#localities.of(workload.locality), like);
    const isFull = Array.isArray(alike) && alike.length >= FEW;
    const digest = isFull || this.#byDigest.size > 0 ? digestOf(profile) : '';
    const known = this.#byDigest.get(digest);
    if (known !== undefined) return known;
    const id = this.#free.pop() ?? this.#profiles.length;
    this.#profiles[id] = profile;
    this.#uses[id] = 0;
    if (isFull) this.#byDigest.set(digest, id);
    else addTo(this.#byKey, key, id);
    return id;
  }
}

/** Enough to tell deployments apart; what is left is compared. */
function keyOf(workload: Omit<Workload, OwnField | 'services'>) {
  const { namespace, workloadName, serviceAccount, canonicalRevision, hostname } = workload;
  return `${namespace}/${workloadName}/${serviceAccount}/${canonicalRevision}/${hostname}`;
}

/** Of everything it says. SHA-256: whoever made two profiles of one digest would pass one workload off as another. */
function digestOf(profile: WorkloadProfile): string {
  const { locality, capacity, nativeTunnel, authorizationPolicies, waypoint, networkGateway, services, ports } =
    profile;
  const text = JSON.stringify([
    TEXTS.map((field) => profile[field]),
    [locality.region, locality.zone, locality.subzone],
    [capacity, nativeTunnel, profile.applicationTunnel?.protocol, profile.applicationTunnel?.port],
    authorizationPolicies,
    partsOf(waypoint),
    partsOf(networkGateway),
    services,
    ports,
  ]);
  return hash('sha256', text, 'base64');
}

function partsOf(gateway: GatewayAddress | null): readonly unknown[] | null {
  if (gateway === null) return null;
  const { destination: to, hboneMtlsPort } = gateway;
  return to.kind === 'address'
    ? [hboneMtlsPort, to.kind, to.network, to.ip]
    : [hboneMtlsPort, to.kind, to.namespace, to.hostname];
}

/** @param like a similar one, such as the same deployment's in another zone: what is equal is held once for both */
function profileOf(
  workload: WorkloadUpdate['workload'],
  ports: WorkloadUpdate['services'],
  locality: Locality,
  like: WorkloadProfile | null,
): WorkloadProfile {
  const isServing = like !== null && isSamePorts(like, ports);
  const services = isServing ? like.services : Object.keys(ports).sort();
  const text = (field: (typeof TEXTS)[number]) => (like?.[field] === workload[field] ? like : workload)[field];
  // One shape for all of them, which is the smallest and the fastest to read.
  return {
    namespace: text('namespace'),
    trustDomain: text('trustDomain'),
    serviceAccount: text('serviceAccount'),
    network: text('network'),
    hostname: text('hostname'),
    protocol: workload.protocol,
    networkMode: workload.networkMode,
    workloadName: text('workloadName'),
    workloadType: text('workloadType'),
    canonicalName: text('canonicalName'),
    canonicalRevision: text('canonicalRevision'),
    clusterId: text('clusterId'),
    locality,
    capacity: workload.capacity,
    waypoint: workload.waypoint,
    networkGateway: workload.networkGateway,
    applicationTunnel: workload.applicationTunnel,
    nativeTunnel: workload.nativeTunnel,
    authorizationPolicies: workload.authorizationPolicies,
    services,
    ports: isServing ? like.ports : services.map((key) => portMaps.of(ports[key]!)),
  };
}

/** More than the zones of most meshes, and few enough to be compared one by one. */
const FEW = 8;

/** Most services of a mesh have the same few ports. */
export const portMaps = new Interned<PortMap>(JSON.stringify);

function isSame(
  profile: WorkloadProfile,
  other: WorkloadUpdate['workload'],
  ports: WorkloadUpdate['services'],
): boolean {
  const a = profile.locality;
  const b = other.locality;
  // First what tells those of a deployment apart. This runs for each workload, and a loop over names would be slower.
  return (
    a.zone === b.zone &&
    a.region === b.region &&
    a.subzone === b.subzone &&
    profile.capacity === other.capacity &&
    profile.namespace === other.namespace &&
    profile.workloadName === other.workloadName &&
    profile.serviceAccount === other.serviceAccount &&
    profile.canonicalRevision === other.canonicalRevision &&
    profile.hostname === other.hostname &&
    profile.trustDomain === other.trustDomain &&
    profile.network === other.network &&
    profile.protocol === other.protocol &&
    profile.networkMode === other.networkMode &&
    profile.workloadType === other.workloadType &&
    profile.canonicalName === other.canonicalName &&
    profile.clusterId === other.clusterId &&
    profile.nativeTunnel === other.nativeTunnel &&
    isSameList(profile.authorizationPolicies, other.authorizationPolicies) &&
    isSameGateway(profile.waypoint, other.waypoint) &&
    isSameGateway(profile.networkGateway, other.networkGateway) &&
    profile.applicationTunnel?.protocol === other.applicationTunnel?.protocol &&
    profile.applicationTunnel?.port === other.applicationTunnel?.port &&
    isSamePorts(profile, ports)
  );
}

const TEXTS = [
  'namespace',
  'trustDomain',
  'serviceAccount',
  'network',
  'hostname',
  'protocol',
  'networkMode',
  'workloadName',
  'workloadType',
  'canonicalName',
  'canonicalRevision',
  'clusterId',
] as const;

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, at) => item === b[at]);
}

function isSameGateway(a: GatewayAddress | null, b: GatewayAddress | null): boolean {
  if (a === null || b === null) return a === b;
  if (a.hboneMtlsPort !== b.hboneMtlsPort) return false;
  const [from, to] = [a.destination, b.destination];
  return from.kind === 'address'
    ? to.kind === 'address' && from.network === to.network && from.ip === to.ip
    : to.kind === 'hostname' && from.namespace === to.namespace && from.hostname === to.hostname;
}

function isSamePorts({ services, ports }: WorkloadProfile, other: WorkloadUpdate['services']): boolean {
  let left = services.length;
  for (const _ in other) left--;
  if (left !== 0) return false;
  for (let at = 0; at < services.length; at++) {
    const key = services[at]!;
    if (!Object.hasOwn(other, key) || !isSamePortMap(ports[at]!, other[key]!)) return false;
  }
  return true;
}

function isSamePortMap(a: PortMap, b: PortMap): boolean {
  if (a === b) return true;
  let left = 0;
  for (const port in a) {
    if (a[port] !== b[port]) return false;
    left++;
  }
  for (const _ in b) left--;
  return left === 0;
}

/** What a workload of the profile says of its ports in a service; null when it does not name the service. */
export function portsIn({ services, ports }: WorkloadProfile, key: ServiceKey): PortMap | null {
  const at = services.indexOf(key);
  return at < 0 ? null : ports[at]!;
}

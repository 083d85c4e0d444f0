import { Interned } from './interned.ts';
import type { WorkloadUpdate } from './mesh-state.ts';
import { addTo, type Rows, removeFrom } from './row-index.ts';
import type { GatewayAddress, Locality, PortMap, ServiceKey, Workload } from './types.ts';

/**
 * What the pods of one deployment in one zone have in common; held once for all of them. In a large mesh this is nearly
 * everything that is known of a workload.
 */
export interface WorkloadProfile extends Omit<Workload, OwnField> {
  /** The ports of each of `services`. */
  readonly ports: Readonly<Record<ServiceKey, PortMap>>;
}

/** What each workload has for itself. */
type OwnField = 'uid' | 'name' | 'node' | 'workloadIps' | 'status';

/** Equal profiles become one object, with a number; one that nobody has any more is dropped. */
export class ProfileIndex {
  readonly #byKey = new Map<string, Rows>();
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
  acquire({ workload, services }: WorkloadUpdate): number {
    const key = keyOf(workload);
    const alike = this.#byKey.get(key);
    const id = this.#find(alike, workload, services) ?? this.#add(key, alike, workload, services);
    this.#uses[id]!++;
    return id;
  }

  release(id: number): void {
    if (--this.#uses[id]! > 0) return;
    removeFrom(this.#byKey, keyOf(this.at(id)), id);
    this.#profiles[id] = null;
    this.#free.push(id);
  }

  #find(alike: Rows | undefined, workload: WorkloadUpdate['workload'], services: WorkloadUpdate['services']) {
    if (alike === undefined) return undefined;
    if (typeof alike === 'number') return isSame(this.at(alike), workload, services) ? alike : undefined;
    return alike.find((id) => isSame(this.at(id), workload, services));
  }

  #add(
    key: string,
    alike: Rows | undefined,
    workload: WorkloadUpdate['workload'],
    services: WorkloadUpdate['services'],
  ): number {
    const like = alike === undefined ? null : this.at(typeof alike === 'number' ? alike : alike[0]!);
    const id = this.#free.pop() ?? this.#profiles.length;
    const profile = profileOf(workload, services, like);
    this.#profiles[id] = { ...profile, locality: this.#localities.of(profile.locality) };
    this.#uses[id] = 0;
    addTo(this.#byKey, key, id);
    return id;
  }
}

/** Enough to tell deployments apart; what is left is compared. */
function keyOf(workload: Omit<Workload, OwnField | 'services'>) {
  const { namespace, workloadName, serviceAccount, canonicalRevision, hostname } = workload;
  return `${namespace}/${workloadName}/${serviceAccount}/${canonicalRevision}/${hostname}`;
}

/** @param like a similar one, such as the same deployment's in another zone: what is equal is held once for both */
function profileOf(
  workload: WorkloadUpdate['workload'],
  ports: WorkloadUpdate['services'],
  like: WorkloadProfile | null,
): WorkloadProfile {
  const { uid, name, node, workloadIps, status, ...common } = workload;
  if (like === null) return { ...common, services: Object.keys(ports).sort(), ports: internedPorts(ports) };
  const shared: Partial<Record<(typeof TEXTS)[number], string>> = {};
  for (const field of TEXTS) if (like[field] === workload[field]) shared[field] = like[field];
  const isServing = isSamePorts(like.ports, ports, isSamePortMap);
  return {
    ...common,
    ...(shared as typeof common),
    services: isServing ? like.services : Object.keys(ports).sort(),
    ports: isServing ? like.ports : internedPorts(ports),
  };
}

/** Most services of a mesh have the same few ports. */
export const portMaps = new Interned<PortMap>(JSON.stringify);

function internedPorts(ports: WorkloadUpdate['services']): WorkloadUpdate['services'] {
  return Object.fromEntries(Object.entries(ports).map(([key, map]) => [key, portMaps.of(map)]));
}

function isSame(
  profile: WorkloadProfile,
  other: WorkloadUpdate['workload'],
  ports: WorkloadUpdate['services'],
): boolean {
  for (const field of TEXTS) if (profile[field] !== other[field]) return false;
  const [a, b] = [profile.locality, other.locality];
  return (
    profile.capacity === other.capacity &&
    profile.nativeTunnel === other.nativeTunnel &&
    a.region === b.region &&
    a.zone === b.zone &&
    a.subzone === b.subzone &&
    isSameList(profile.authorizationPolicies, other.authorizationPolicies) &&
    isSameGateway(profile.waypoint, other.waypoint) &&
    isSameGateway(profile.networkGateway, other.networkGateway) &&
    profile.applicationTunnel?.protocol === other.applicationTunnel?.protocol &&
    profile.applicationTunnel?.port === other.applicationTunnel?.port &&
    isSamePorts(profile.ports, ports, isSamePortMap)
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

function isSamePorts<T>(
  a: Readonly<Record<string, T>>,
  b: Readonly<Record<string, T>>,
  isSameValue: (a: T, b: T) => boolean,
): boolean {
  if (a === b) return true;
  let left = 0;
  for (const key in a) {
    if (!Object.hasOwn(b, key) || !isSameValue(a[key]!, b[key]!)) return false;
    left++;
  }
  for (const _ in b) left--;
  return left === 0;
}

function isSamePortMap(a: PortMap, b: PortMap): boolean {
  return isSamePorts(a, b, Object.is);
}

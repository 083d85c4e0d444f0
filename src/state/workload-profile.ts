import type { WorkloadUpdate } from './mesh-state.ts';
import type { GatewayAddress, PortMap, ServiceKey, Workload } from './types.ts';

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

/** Equal profiles become one object; one that nobody has any more is dropped. */
export class ProfileIndex {
  readonly #byKey = new Map<string, Counted[]>();

  get size(): number {
    let size = 0;
    for (const { length } of this.#byKey.values()) size += length;
    return size;
  }

  /** The profile of a workload; has to be released as often as it was acquired. */
  acquire({ workload, services }: WorkloadUpdate): WorkloadProfile {
    const key = keyOf(workload);
    let alike = this.#byKey.get(key);
    if (alike === undefined) {
      alike = [];
      this.#byKey.set(key, alike);
    }
    let found = alike.find(({ profile }) => isSame(profile, workload, services));
    if (found === undefined) {
      found = { profile: profileOf(workload, services, alike[0]?.profile ?? null), uses: 0 };
      alike.push(found);
    }
    found.uses++;
    return found.profile;
  }

  release(profile: WorkloadProfile): void {
    const key = keyOf(profile);
    const alike = this.#byKey.get(key) ?? [];
    const at = alike.findIndex((other) => other.profile === profile);
    if (at < 0 || --alike[at]!.uses > 0) return;
    alike.splice(at, 1);
    if (alike.length === 0) this.#byKey.delete(key);
  }
}

interface Counted {
  readonly profile: WorkloadProfile;
  uses: number;
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
  if (like === null) return { ...common, services: Object.keys(ports).sort(), ports };
  const shared: Partial<Record<(typeof TEXTS)[number], string>> = {};
  for (const field of TEXTS) if (like[field] === workload[field]) shared[field] = like[field];
  const isServing = isSamePorts(like.ports, ports, isSamePortMap);
  return {
    ...common,
    ...(shared as typeof common),
    services: isServing ? like.services : Object.keys(ports).sort(),
    ports: isServing ? like.ports : ports,
  };
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

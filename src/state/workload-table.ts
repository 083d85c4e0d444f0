import { formatIpv4 } from '../netns/address.ts';
import type { Member, MemberAddresses, WorkloadUpdate } from './mesh-state.ts';
import { resized } from './off-heap.ts';
import type { PackedMap } from './packed-map.ts';
import { AddressIndex, addTo, ipv4Word, type RowIndex, type Rows, removeFrom } from './row-index.ts';
import { SharedTexts } from './shared-texts.ts';
import type { TextListBuilder } from './text-list.ts';
import { type NetworkAddress, nameInUid, type ServiceKey, type Workload } from './types.ts';
import { ProfileIndex, portsIn, type WorkloadProfile } from './workload-profile.ts';

/**
 * Workloads by uid, address, hostname and service, and the pods of this node by name (spec §10.1).
 *
 * Made for hundreds of thousands: a workload is a row of numbers and a name, outside of the heap, and refers to the
 * profile it shares with its like; objects are made when somebody asks (`npm run bench -- mesh`).
 */
export class WorkloadTable {
  readonly #localNode: string;
  readonly #profiles = new ProfileIndex();
  readonly #nodes = new SharedTexts();
  /** The number of a uid is its row. The value is what does not fit into the columns (`restOf`). */
  readonly #uids: PackedMap;
  /** COLUMNS numbers for each row. */
  #columns = new Int32Array(0);
  // The other indexes.
  readonly #byAddress = new Map<string, AddressIndex>();
  readonly #byHostname = new Map<string, Rows>();
  readonly #byPod = new Map<string, Rows>();
  /** Those that name a service, whether or not that service is known. */
  readonly #members = new Map<ServiceKey, number[]>();
  readonly #recent: ({ readonly row: number; readonly workload: Workload } | undefined)[] = Array(RECENT);
  readonly #cursor: Cursor;

  /**
   * @param localNode name of this node; '' takes the workloads of all nodes as local
   * @param uids an empty map, for this alone
   */
  constructor(localNode: string, uids: PackedMap) {
    this.#localNode = localNode;
    this.#uids = uids;
    this.#cursor = new Cursor(this);
  }

  get size(): number {
    return this.#uids.size;
  }

  get(uid: string): Workload | null {
    const row = this.#uids.find(uid);
    return row < 0 ? null : this.#readOften(row);
  }

  has(uid: string): boolean {
    return this.#uids.find(uid) >= 0;
  }

  *values(): IterableIterator<Workload> {
    for (const row of this.#uids.ids()) yield this.#read(row);
  }

  /** Pods win over other kinds, then HBONE over TCP, then the one that came last. */
  byAddress(network: string, ip: string): Workload | null {
    const rows = this.#byAddress.get(network)?.get(ip);
    if (rows === undefined) return null;
    const row =
      typeof rows === 'number'
        ? rows
        : rows.reduce((best, next) => (this.#rank(next) >= this.#rank(best) ? next : best));
    return this.#readOften(row);
  }

  byHostname(namespace: string, hostname: string): Workload | null {
    return this.#readLast(this.#byHostname.get(`${namespace}/${hostname}`));
  }

  byPod(pod: { namespace: string; name: string; serviceAccount: string }): Workload | null {
    return this.#readLast(this.#byPod.get(podName(pod)));
  }

  /** What a workload says about a service; null when it does not name it. */
  member(key: ServiceKey, uid: string): Member | null {
    const row = this.#uids.find(uid);
    if (row < 0 || portsIn(this.profileAt(row), key) === null) return null;
    return new Cursor(this).moveTo(row);
  }

  /** Calls `visit` for every workload that names the service. The member is only valid within the call. */
  forEachMember(key: ServiceKey, visit: (member: Member) => void): void {
    const rows = this.#members.get(key);
    if (rows === undefined) return;
    for (const row of rows) visit(this.#cursor.moveTo(row));
  }

  servicesNamed(): IterableIterator<ServiceKey> {
    return this.#members.keys();
  }

  /** Where the workload can be found now: every key that leads to it. Nothing when it is not there. */
  keysOf(uid: string): WorkloadKeys | null {
    const row = this.#uids.find(uid);
    if (row < 0) return null;
    const profile = this.profileAt(row);
    const name = this.nameAt(row);
    return {
      uid,
      addresses: this.ipsAt(row).map((ip) => `${profile.network}/${ip}`),
      hostname: profile.hostname === '' ? null : `${profile.namespace}/${profile.hostname}`,
      pod: podName({ namespace: profile.namespace, name, serviceAccount: profile.serviceAccount }),
      services: profile.services,
    };
  }

  /** False when it is there already, exactly so. */
  insert(update: WorkloadUpdate): boolean {
    const { workload, ipv4 } = update;
    const profile = this.#profiles.acquire(update);
    const node = this.#nodes.acquire(workload.node);
    const word = ipv4 ?? (workload.workloadIps.length === 1 ? ipv4Word(workload.workloadIps[0]!) : null);
    const rest = ipv4 === undefined ? restOf(workload, word !== null) : '';
    const flags = (workload.status === 'Healthy' ? HEALTHY : 0) | (word === null ? 0 : ONE_IPV4);
    const known = this.#uids.find(workload.uid);
    let before: readonly ServiceKey[] = [];
    if (known >= 0) {
      const isSame =
        this.#at(known, PROFILE) === profile &&
        this.#at(known, NODE) === node &&
        this.#at(known, IPV4) === (word ?? 0) &&
        this.#at(known, FLAGS) === flags &&
        this.#uids.valueAt(known) === rest;
      if (isSame) {
        this.#profiles.release(profile);
        this.#nodes.release(node);
        return false;
      }
      before = this.profileAt(known).services;
      this.#clear(known, this.#profiles.at(profile).services);
    }
    const row = this.#uids.set(workload.uid, rest);
    this.#put(row, profile, node, word ?? 0, flags);
    this.#forEachKey(row, addTo);
    for (const key of without(this.profileAt(row).services, before)) {
      const rows = this.#members.get(key);
      if (rows === undefined) this.#members.set(key, [row]);
      else rows.push(row);
    }
    return true;
  }

  /** False when it is not there. */
  remove(uid: string): boolean {
    const row = this.#uids.find(uid);
    if (row < 0) return false;
    this.#clear(row, []);
    this.#uids.delete(uid);
    return true;
  }

  // The columns, for the cursor.

  uidAt(row: number): string {
    return this.#uids.keyAt(row);
  }

  profileAt(row: number): WorkloadProfile {
    return this.#profiles.at(this.#at(row, PROFILE));
  }

  nameAt(row: number): string {
    return this.ownNameAt(row) ?? nameInUid(this.uidAt(row));
  }

  /** null when the uid ends in it. */
  ownNameAt(row: number): string | null {
    const rest = this.#uids.valueAt(row);
    const end = rest.indexOf('\n');
    return end < 0 ? null : rest.slice(end + 1);
  }

  nodeAt(row: number): string {
    return this.#nodes.at(this.#at(row, NODE));
  }

  ipsAt(row: number): readonly string[] {
    if (this.#hasOneIpv4(row)) return [formatIpv4(this.#at(row, IPV4))];
    const [ips = ''] = this.#uids.valueAt(row).split('\n', 1);
    return ips === '' ? [] : ips.split(' ');
  }

  addressesAt(row: number): MemberAddresses {
    return this.#hasOneIpv4(row) ? this.#at(row, IPV4) : this.ipsAt(row);
  }

  appendUid(row: number, to: TextListBuilder): void {
    this.#uids.appendKey(row, to);
  }

  isHealthyAt(row: number): boolean {
    return (this.#at(row, FLAGS) & HEALTHY) !== 0;
  }

  #at(row: number, column: number): number {
    return this.#columns[row * COLUMNS + column]!;
  }

  #hasOneIpv4(row: number): boolean {
    return (this.#at(row, FLAGS) & ONE_IPV4) !== 0;
  }

  #put(row: number, profile: number, node: number, ipv4: number, flags: number): void {
    const start = row * COLUMNS;
    if (start >= this.#columns.length) {
      this.#columns = resized(this.#columns, Math.ceil((row + 1) * 1.25) * COLUMNS);
    }
    this.#columns[start + PROFILE] = profile;
    this.#columns[start + NODE] = node;
    this.#columns[start + IPV4] = ipv4;
    this.#columns[start + FLAGS] = flags;
  }

  /** Many connections go to few workloads: the objects of those that were asked for last are kept. */
  #readOften(row: number): Workload {
    const place = row % RECENT;
    const recent = this.#recent[place];
    if (recent !== undefined && recent.row === row) return recent.workload;
    const workload = this.#read(row);
    this.#recent[place] = { row, workload };
    return workload;
  }

  #read(row: number): Workload {
    const profile = this.profileAt(row);
    const uid = this.uidAt(row);
    return {
      uid,
      name: this.ownNameAt(row) ?? nameInUid(uid),
      namespace: profile.namespace,
      trustDomain: profile.trustDomain,
      serviceAccount: profile.serviceAccount,
      network: profile.network,
      workloadIps: this.ipsAt(row),
      hostname: profile.hostname,
      protocol: profile.protocol,
      networkMode: profile.networkMode,
      node: this.nodeAt(row),
      workloadName: profile.workloadName,
      workloadType: profile.workloadType,
      canonicalName: profile.canonicalName,
      canonicalRevision: profile.canonicalRevision,
      clusterId: profile.clusterId,
      locality: profile.locality,
      status: this.isHealthyAt(row) ? 'Healthy' : 'Unhealthy',
      capacity: profile.capacity,
      waypoint: profile.waypoint,
      networkGateway: profile.networkGateway,
      applicationTunnel: profile.applicationTunnel,
      nativeTunnel: profile.nativeTunnel,
      authorizationPolicies: profile.authorizationPolicies,
      services: profile.services,
    };
  }

  #readLast(rows: Rows | undefined): Workload | null {
    if (rows === undefined) return null;
    return this.#read(typeof rows === 'number' ? rows : rows.at(-1)!);
  }

  #rank(row: number): number {
    return (this.uidAt(row).includes('//Pod/') ? 2 : 0) + (this.profileAt(row).protocol === 'HBONE' ? 1 : 0);
  }

  /** Takes the row out of its indexes; out of the services only where they are not `kept`. */
  #clear(row: number, kept: readonly ServiceKey[]): void {
    if (this.#recent[row % RECENT]?.row === row) this.#recent[row % RECENT] = undefined;
    this.#forEachKey(row, removeFrom);
    for (const key of without(this.profileAt(row).services, kept)) {
      const rows = this.#members.get(key)!;
      // Nobody relies on their order.
      const last = rows.pop()!;
      if (last !== row) rows[rows.indexOf(row)] = last;
      if (rows.length === 0) this.#members.delete(key);
    }
    this.#nodes.release(this.#at(row, NODE));
    this.#profiles.release(this.#at(row, PROFILE));
  }

  #forEachKey(row: number, act: <K>(index: RowIndex<K>, key: K, row: number) => void): void {
    const { networkMode, network, hostname, namespace, serviceAccount } = this.profileAt(row);
    // A host-network workload shares the node's address with everything else there, so the address says nothing.
    if (networkMode === 'Standard') {
      let index = this.#byAddress.get(network);
      if (index === undefined) {
        index = new AddressIndex();
        this.#byAddress.set(network, index);
      }
      if (this.#hasOneIpv4(row)) act(index.ipv4, this.#at(row, IPV4), row);
      else for (const ip of new Set(this.ipsAt(row))) act(index, ip, row);
      if (act === removeFrom && index.isEmpty) this.#byAddress.delete(network);
    }
    if (hostname !== '') act(this.#byHostname, `${namespace}/${hostname}`, row);
    if (this.#localNode === '' || this.nodeAt(row) === this.#localNode) {
      act(this.#byPod, podName({ namespace, name: this.nameAt(row), serviceAccount }), row);
    }
  }
}

/** Those of `keys` that are not `others`, in time that grows with the number of both, not with its square. */
function without(keys: readonly ServiceKey[], others: readonly ServiceKey[]): readonly ServiceKey[] {
  if (others.length === 0) return keys;
  if (keys === others) return [];
  if (others.length <= FEW) return keys.filter((key) => !others.includes(key));
  const excluded = new Set(others);
  return keys.filter((key) => !excluded.has(key));
}

/** Every key that leads to a workload. */
export interface WorkloadKeys {
  readonly uid: string;
  readonly addresses: readonly NetworkAddress[];
  readonly hostname: string | null;
  readonly pod: string;
  readonly services: readonly ServiceKey[];
}

/** `namespace/name/serviceAccount` */
export function podName(pod: { namespace: string; name: string; serviceAccount: string }): string {
  return `${pod.namespace}/${pod.name}/${pod.serviceAccount}`;
}

/** The row a visit has come to. One object serves all visits, so that none is made per workload. */
class Cursor implements Member {
  readonly #table: WorkloadTable;
  #row = 0;

  constructor(table: WorkloadTable) {
    this.#table = table;
  }

  moveTo(row: number): this {
    this.#row = row;
    return this;
  }

  get uid(): string {
    return this.#table.uidAt(this.#row);
  }

  get ownName(): string | null {
    return this.#table.ownNameAt(this.#row);
  }

  get node(): string {
    return this.#table.nodeAt(this.#row);
  }

  appendUid(to: TextListBuilder): void {
    this.#table.appendUid(this.#row, to);
  }

  get addresses(): MemberAddresses {
    return this.#table.addressesAt(this.#row);
  }

  get isHealthy(): boolean {
    return this.#table.isHealthyAt(this.#row);
  }

  get profile(): WorkloadProfile {
    return this.#table.profileAt(this.#row);
  }
}

/** What the columns have no place for: the addresses, unless it is one of IPv4; and the name, unless the uid ends in it. */
function restOf({ uid, name, workloadIps }: WorkloadUpdate['workload'], hasOneIpv4: boolean): string {
  const ips = hasOneIpv4 ? '' : workloadIps.join(' ');
  return uid.endsWith(name) && nameInUid(uid) === name ? ips : `${ips}\n${name}`;
}

/** A prime: rows of one shard differ by multiples of the number of shards. */
const RECENT = 16_381;
/** So many are searched through faster than a set of them is made. */
const FEW = 8;
const COLUMNS = 4;
/** Numbers of the profile and of the node's name. */
const PROFILE = 0;
const NODE = 1;
/** The only address, when the flag says so; 0 else. */
const IPV4 = 2;
const FLAGS = 3;
const HEALTHY = 1;
const ONE_IPV4 = 2;

import { formatIp, parseIpv4 } from '../netns/address.ts';
import type { Member, WorkloadUpdate } from './mesh-state.ts';
import { hashName, ShardedMap } from './sharded-map.ts';
import { type NetworkAddress, nameInUid, type ServiceKey, type Workload } from './types.ts';
import { ProfileIndex, type WorkloadProfile } from './workload-profile.ts';

/**
 * Workloads by uid, address, hostname and service, and the pods of this node by name (spec §10.1).
 *
 * Made for hundreds of thousands: a workload is a row of columns that hold what it has for itself, and refers to the
 * profile it shares with its like; objects are made when somebody asks. About 250 bytes per workload, indexes included
 * (`npm run bench -- mesh`).
 */
export class WorkloadTable {
  readonly #localNode: string;
  readonly #profileIndex = new ProfileIndex();
  readonly #nodes = new SharedTexts();
  // The columns; a row that is not in use has no uid.
  readonly #uids: (string | null)[] = [];
  readonly #profiles: (WorkloadProfile | null)[] = [];
  /** null when the uid ends in it */
  readonly #names: (string | null)[] = [];
  readonly #nodeOf: string[] = [];
  readonly #ips: Ips[] = [];
  readonly #healthy: boolean[] = [];
  readonly #freeRows: number[] = [];
  // The indexes.
  readonly #byUid = new ShardedMap<string, number>(hashName);
  readonly #byAddress = new Map<string, AddressIndex>();
  readonly #byHostname = new Map<string, Rows>();
  readonly #byPod = new Map<string, Rows>();
  /** Those that name a service, whether or not that service is known. */
  readonly #members = new Map<ServiceKey, number[]>();
  readonly #cursor: Cursor;

  /** @param localNode name of this node; '' takes the workloads of all nodes as local */
  constructor(localNode: string) {
    this.#localNode = localNode;
    this.#cursor = new Cursor(this);
  }

  get size(): number {
    return this.#byUid.size;
  }

  get(uid: string): Workload | null {
    const row = this.#byUid.get(uid);
    return row === undefined ? null : this.#read(row);
  }

  has(uid: string): boolean {
    return this.#byUid.has(uid);
  }

  *values(): IterableIterator<Workload> {
    for (const [, row] of this.#byUid) yield this.#read(row);
  }

  /** Pods win over other kinds, then HBONE over TCP, then the one that came last. */
  byAddress(network: string, ip: string): Workload | null {
    const rows = this.#byAddress.get(network)?.get(ip);
    if (rows === undefined) return null;
    const row =
      typeof rows === 'number'
        ? rows
        : rows.reduce((best, next) => (this.#rank(next) >= this.#rank(best) ? next : best));
    // Its only address, which need not be made into text again.
    return this.#read(row, typeof this.#ips[row] === 'number' ? [ip] : this.ipsAt(row));
  }

  byHostname(namespace: string, hostname: string): Workload | null {
    return this.#readLast(this.#byHostname.get(`${namespace}/${hostname}`));
  }

  byPod(pod: { namespace: string; name: string; serviceAccount: string }): Workload | null {
    return this.#readLast(this.#byPod.get(podName(pod)));
  }

  /** What a workload says about a service; null when it does not name it. */
  member(key: ServiceKey, uid: string): Member | null {
    const row = this.#byUid.get(uid);
    if (row === undefined || !Object.hasOwn(this.#profiles[row]!.ports, key)) return null;
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

  /** The services that the workload names now. */
  servicesOf(uid: string): readonly ServiceKey[] {
    const row = this.#byUid.get(uid);
    return row === undefined ? [] : this.#profiles[row]!.services;
  }

  /** Where the workload can be found now: every key that leads to it. Nothing when it is not there. */
  keysOf(uid: string): WorkloadKeys | null {
    const row = this.#byUid.get(uid);
    if (row === undefined) return null;
    const profile = this.#profiles[row]!;
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
    const { workload } = update;
    const profile = this.#profileIndex.acquire(update);
    const ips = packIps(workload.workloadIps);
    const known = this.#byUid.get(workload.uid);
    if (known !== undefined) {
      if (
        this.#profiles[known] === profile &&
        this.nameAt(known) === workload.name &&
        this.#nodeOf[known] === workload.node &&
        this.#healthy[known] === (workload.status === 'Healthy') &&
        isSameIps(this.#ips[known]!, ips)
      ) {
        this.#profileIndex.release(profile);
        return false;
      }
      this.#clear(known, profile.services);
    }
    const row = known ?? this.#freeRows.pop() ?? this.#uids.length;
    const before = known === undefined ? [] : this.#profiles[row]!.services;
    this.#uids[row] = workload.uid;
    this.#profiles[row] = profile;
    this.#names[row] = nameInUid(workload.uid) === workload.name ? null : workload.name;
    this.#nodeOf[row] = this.#nodes.acquire(workload.node);
    this.#ips[row] = ips;
    this.#healthy[row] = workload.status === 'Healthy';
    if (known === undefined) this.#byUid.set(workload.uid, row);
    this.#forEachKey(row, addTo);
    for (const key of profile.services) {
      if (before.includes(key)) continue;
      const rows = this.#members.get(key);
      if (rows === undefined) this.#members.set(key, [row]);
      else rows.push(row);
    }
    return true;
  }

  /** False when it is not there. */
  remove(uid: string): boolean {
    const row = this.#byUid.get(uid);
    if (row === undefined) return false;
    this.#clear(row, []);
    this.#byUid.delete(uid);
    this.#uids[row] = null;
    this.#profiles[row] = null;
    this.#names[row] = null;
    this.#nodeOf[row] = '';
    this.#ips[row] = NO_IPS;
    this.#freeRows.push(row);
    return true;
  }

  // The columns, for the cursor.

  uidAt(row: number): string {
    return this.#uids[row]!;
  }

  profileAt(row: number): WorkloadProfile {
    return this.#profiles[row]!;
  }

  nameAt(row: number): string {
    return this.#names[row] ?? nameInUid(this.#uids[row]!);
  }

  ownNameAt(row: number): string | null {
    return this.#names[row]!;
  }

  nodeAt(row: number): string {
    return this.#nodeOf[row]!;
  }

  ipsAt(row: number): readonly string[] {
    return unpackIps(this.#ips[row]!);
  }

  addressesAt(row: number): string | readonly string[] {
    const ips = this.#ips[row]!;
    return typeof ips === 'number' ? formatWord(ips) : ips;
  }

  isHealthyAt(row: number): boolean {
    return this.#healthy[row]!;
  }

  #read(row: number, workloadIps: readonly string[] = this.ipsAt(row)): Workload {
    const profile = this.#profiles[row]!;
    return {
      uid: this.#uids[row]!,
      name: this.nameAt(row),
      namespace: profile.namespace,
      trustDomain: profile.trustDomain,
      serviceAccount: profile.serviceAccount,
      network: profile.network,
      workloadIps,
      hostname: profile.hostname,
      protocol: profile.protocol,
      networkMode: profile.networkMode,
      node: this.#nodeOf[row]!,
      workloadName: profile.workloadName,
      workloadType: profile.workloadType,
      canonicalName: profile.canonicalName,
      canonicalRevision: profile.canonicalRevision,
      clusterId: profile.clusterId,
      locality: profile.locality,
      status: this.#healthy[row] ? 'Healthy' : 'Unhealthy',
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
    return (this.#uids[row]!.includes('//Pod/') ? 2 : 0) + (this.#profiles[row]!.protocol === 'HBONE' ? 1 : 0);
  }

  /** Takes the row out of its indexes; out of the services only where they are not `kept`. */
  #clear(row: number, kept: readonly ServiceKey[]): void {
    this.#forEachKey(row, removeFrom);
    const profile = this.#profiles[row]!;
    for (const key of profile.services) {
      if (kept.includes(key)) continue;
      const rows = this.#members.get(key)!;
      // Nobody relies on their order.
      const last = rows.pop()!;
      if (last !== row) rows[rows.indexOf(row)] = last;
      if (rows.length === 0) this.#members.delete(key);
    }
    this.#nodes.release(this.#nodeOf[row]!);
    this.#profileIndex.release(profile);
  }

  #forEachKey(row: number, act: (index: Index, key: string, row: number) => void): void {
    const { networkMode, network, hostname, namespace, serviceAccount } = this.#profiles[row]!;
    // A host-network workload shares the node's address with everything else there, so the address says nothing.
    if (networkMode === 'Standard') {
      let index = this.#byAddress.get(network);
      if (index === undefined) {
        index = new AddressIndex();
        this.#byAddress.set(network, index);
      }
      const ips = this.ipsAt(row);
      if (ips.length === 1) act(index, ips[0]!, row);
      else for (const ip of new Set(ips)) act(index, ip, row);
      if (index.size === 0) this.#byAddress.delete(network);
    }
    if (hostname !== '') act(this.#byHostname, `${namespace}/${hostname}`, row);
    if (this.#localNode === '' || this.#nodeOf[row] === this.#localNode) {
      act(this.#byPod, podName({ namespace, name: this.nameAt(row), serviceAccount }), row);
    }
  }
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

  get addresses(): string | readonly string[] {
    return this.#table.addressesAt(this.#row);
  }

  get isHealthy(): boolean {
    return this.#table.isHealthyAt(this.#row);
  }

  get profile(): WorkloadProfile {
    return this.#table.profileAt(this.#row);
  }
}

/** One workload per key is the rule, so the array is made only when there are several. */
type Rows = number | number[];
interface Index {
  get(key: string): Rows | undefined;
  set(key: string, rows: Rows): unknown;
  delete(key: string): unknown;
}

function addTo(index: Index, key: string, row: number): void {
  const found = index.get(key);
  if (found === undefined) index.set(key, row);
  else if (typeof found === 'number') index.set(key, [found, row]);
  else found.push(row);
}

function removeFrom(index: Index, key: string, row: number): void {
  const found = index.get(key);
  if (found === undefined || typeof found === 'number') {
    index.delete(key);
    return;
  }
  found.splice(found.indexOf(row), 1);
  if (found.length === 1) index.set(key, found[0]!);
}

/** Rows by canonical address. IPv4 addresses are kept as numbers, which need no text of their own. */
class AddressIndex implements Index {
  readonly #ipv4 = new ShardedMap<number, Rows>((word) => word);
  readonly #others = new Map<string, Rows>();

  get size(): number {
    return this.#ipv4.size + this.#others.size;
  }

  get(ip: string): Rows | undefined {
    const word = ipv4Word(ip);
    return word === null ? this.#others.get(ip) : this.#ipv4.get(word);
  }

  set(ip: string, rows: Rows): void {
    const word = ipv4Word(ip);
    if (word === null) this.#others.set(ip, rows);
    else this.#ipv4.set(word, rows);
  }

  delete(ip: string): void {
    const word = ipv4Word(ip);
    if (word === null) this.#others.delete(ip);
    else this.#ipv4.delete(word);
  }
}

/** The addresses of a workload: one IPv4 address as a number, one other as text, or the list. */
type Ips = number | string | readonly string[];

const NO_IPS: readonly string[] = [];

function packIps(ips: readonly string[]): Ips {
  if (ips.length !== 1) return ips.length === 0 ? NO_IPS : ips;
  return ipv4Word(ips[0]!) ?? ips[0]!;
}

function unpackIps(ips: Ips): readonly string[] {
  if (typeof ips === 'number') return [formatWord(ips)];
  return typeof ips === 'string' ? [ips] : ips;
}

function formatWord(word: number): string {
  return formatIp({ family: 4, words: [word >>> 0, 0, 0, 0] });
}

function isSameIps(a: Ips, b: Ips): boolean {
  if (typeof a !== 'object' || typeof b !== 'object') return a === b;
  return a.length === b.length && a.every((ip, at) => ip === b[at]);
}

/** A signed 32 bit integer, which V8 stores in place; null for what is not IPv4. */
function ipv4Word(ip: string): number | null {
  const word = parseIpv4(ip);
  return word === null ? null : word | 0;
}

/** Equal texts become one; one that nobody has any more is dropped. */
class SharedTexts {
  readonly #uses = new Map<string, { readonly text: string; uses: number }>();

  acquire(text: string): string {
    let entry = this.#uses.get(text);
    if (entry === undefined) {
      entry = { text, uses: 0 };
      this.#uses.set(text, entry);
    }
    entry.uses++;
    return entry.text;
  }

  release(text: string): void {
    const entry = this.#uses.get(text);
    if (entry !== undefined && --entry.uses === 0) this.#uses.delete(text);
  }
}

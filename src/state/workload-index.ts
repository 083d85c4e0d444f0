import { type NetworkAddress, networkAddress, type Workload } from './types.ts';

/** Workloads by uid, by address, by hostname, and the pods of this node by name (spec §10.1). */
export class WorkloadIndex {
  readonly #localNode: string;
  readonly #byUid = new Map<string, Workload>();
  readonly #byAddress = new Map<NetworkAddress, Workload | Workload[]>();
  readonly #byHostname = new Map<string, Workload | Workload[]>();
  readonly #byPod = new Map<string, Workload | Workload[]>();

  /** @param localNode name of this node; '' takes the workloads of all nodes as local */
  constructor(localNode: string) {
    this.#localNode = localNode;
  }

  get(uid: string): Workload | null {
    return this.#byUid.get(uid) ?? null;
  }

  values(): IterableIterator<Workload> {
    return this.#byUid.values();
  }

  /** Pods win over other kinds, then HBONE over TCP, then the one that came last. */
  byAddress(address: NetworkAddress): Workload | null {
    const found = this.#byAddress.get(address);
    if (found === undefined) return null;
    return Array.isArray(found) ? found.reduce((best, next) => (rank(next) >= rank(best) ? next : best)) : found;
  }

  byHostname(namespace: string, hostname: string): Workload | null {
    return lastOf(this.#byHostname.get(`${namespace}/${hostname}`));
  }

  byPod(pod: { namespace: string; name: string; serviceAccount: string }): Workload | null {
    return lastOf(this.#byPod.get(podKey(pod)));
  }

  insert(workload: Workload): void {
    this.remove(workload.uid);
    this.#byUid.set(workload.uid, workload);
    this.#forEachKey(workload, addTo);
  }

  remove(uid: string): void {
    const workload = this.#byUid.get(uid);
    if (workload === undefined) return;
    this.#byUid.delete(uid);
    this.#forEachKey(workload, removeFrom);
  }

  #forEachKey(workload: Workload, act: (index: Index, key: string, workload: Workload) => void): void {
    // A host-network workload shares the node's address with everything else there, so the address says nothing.
    if (workload.networkMode === 'Standard') {
      for (const ip of new Set(workload.workloadIps)) {
        act(this.#byAddress, networkAddress(workload.network, ip), workload);
      }
    }
    if (workload.hostname !== '') act(this.#byHostname, `${workload.namespace}/${workload.hostname}`, workload);
    if (this.#localNode === '' || workload.node === this.#localNode) act(this.#byPod, podKey(workload), workload);
  }
}

/** One workload per key is the rule, so the array is made only when there are several. */
type Index = Map<string, Workload | Workload[]>;

function addTo(index: Index, key: string, workload: Workload): void {
  const found = index.get(key);
  if (found === undefined) index.set(key, workload);
  else if (Array.isArray(found)) found.push(workload);
  else index.set(key, [found, workload]);
}

function removeFrom(index: Index, key: string, workload: Workload): void {
  const found = index.get(key);
  if (!Array.isArray(found)) {
    index.delete(key);
    return;
  }
  found.splice(found.indexOf(workload), 1);
  if (found.length === 1) index.set(key, found[0]!);
}

function lastOf(found: Workload | Workload[] | undefined): Workload | null {
  return (Array.isArray(found) ? found.at(-1) : found) ?? null;
}

function rank(workload: Workload): number {
  return (workload.uid.includes('//Pod/') ? 2 : 0) + (workload.protocol === 'HBONE' ? 1 : 0);
}

function podKey({ namespace, name, serviceAccount }: { namespace: string; name: string; serviceAccount: string }) {
  return `${namespace}/${name}/${serviceAccount}`;
}

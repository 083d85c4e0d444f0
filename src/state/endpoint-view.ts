import type { Member } from './mesh-state.ts';
import type { Endpoint, ServiceKey } from './types.ts';
import { portsIn } from './workload-profile.ts';
import type { WorkloadTable } from './workload-table.ts';

/** The endpoints of a service as a map by uid. Nothing is held: every look reads what the workloads say now. */
export class EndpointView implements ReadonlyMap<string, Endpoint> {
  readonly #table: WorkloadTable;
  readonly #key: ServiceKey;
  readonly #takesUnhealthy: () => boolean;

  constructor(table: WorkloadTable, key: ServiceKey, takesUnhealthy: () => boolean) {
    this.#table = table;
    this.#key = key;
    this.#takesUnhealthy = takesUnhealthy;
  }

  get size(): number {
    let size = 0;
    this.forEachMember(() => size++);
    return size;
  }

  /** See MeshState.forEachEndpoint. */
  forEachMember(visit: (member: Member) => void): void {
    if (this.#takesUnhealthy()) {
      this.#table.forEachMember(this.#key, visit);
      return;
    }
    this.#table.forEachMember(this.#key, (member) => {
      if (member.isHealthy) visit(member);
    });
  }

  get(uid: string): Endpoint | undefined {
    const member = this.#table.member(this.#key, uid);
    if (member === null || !(member.isHealthy || this.#takesUnhealthy())) return undefined;
    return this.#read(member);
  }

  has(uid: string): boolean {
    return this.get(uid) !== undefined;
  }

  forEach(visit: (endpoint: Endpoint, uid: string, map: ReadonlyMap<string, Endpoint>) => void): void {
    for (const [uid, endpoint] of this.entries()) visit(endpoint, uid, this);
  }

  keys(): MapIterator<string> {
    return this.#list()
      .map(({ workloadUid }) => workloadUid)
      .values();
  }

  values(): MapIterator<Endpoint> {
    return this.#list().values();
  }

  entries(): MapIterator<[string, Endpoint]> {
    return this.#list()
      .map((endpoint): [string, Endpoint] => [endpoint.workloadUid, endpoint])
      .values();
  }

  [Symbol.iterator](): MapIterator<[string, Endpoint]> {
    return this.entries();
  }

  #list(): Endpoint[] {
    const list: Endpoint[] = [];
    this.forEachMember((member) => list.push(this.#read(member)));
    return list;
  }

  #read({ uid, profile, isHealthy }: Member): Endpoint {
    return { workloadUid: uid, port: portsIn(profile, this.#key)!, status: isHealthy ? 'Healthy' : 'Unhealthy' };
  }
}

// Hot path of taking in a mesh: `npm run bench -- scale`.
import { formatIpv4 } from '../netns/address.ts';
import type { WorkloadUpdate } from './mesh-state.ts';
import { type HealthStatus, nameInUid } from './types.ts';

type Read = WorkloadUpdate['workload'];

/**
 * A workload that differs from another one in no more than its uid, the name in it, its node, its only address and its
 * health, as most pods of a deployment do: it takes a third of what a copy would, and nobody asks for most of it.
 */
export class PlainWorkload implements Read {
  readonly uid: string;
  readonly node: string;
  readonly status: HealthStatus;
  readonly #ipv4: number;
  readonly #like: Read;

  /** @param ipv4 as a signed number */
  constructor(like: Read, uid: string, node: string, ipv4: number, status: HealthStatus) {
    this.uid = uid;
    this.node = node;
    this.status = status;
    this.#ipv4 = ipv4;
    this.#like = like;
  }

  get name() {
    return nameInUid(this.uid);
  }

  get workloadIps() {
    return [formatIpv4(this.#ipv4)];
  }

  get namespace() {
    return this.#like.namespace;
  }

  get trustDomain() {
    return this.#like.trustDomain;
  }

  get serviceAccount() {
    return this.#like.serviceAccount;
  }

  get network() {
    return this.#like.network;
  }

  get hostname() {
    return this.#like.hostname;
  }

  get protocol() {
    return this.#like.protocol;
  }

  get networkMode() {
    return this.#like.networkMode;
  }

  get workloadName() {
    return this.#like.workloadName;
  }

  get workloadType() {
    return this.#like.workloadType;
  }

  get canonicalName() {
    return this.#like.canonicalName;
  }

  get canonicalRevision() {
    return this.#like.canonicalRevision;
  }

  get clusterId() {
    return this.#like.clusterId;
  }

  get locality() {
    return this.#like.locality;
  }

  get capacity() {
    return this.#like.capacity;
  }

  get waypoint() {
    return this.#like.waypoint;
  }

  get networkGateway() {
    return this.#like.networkGateway;
  }

  get applicationTunnel() {
    return this.#like.applicationTunnel;
  }

  get nativeTunnel() {
    return this.#like.nativeTunnel;
  }

  get authorizationPolicies() {
    return this.#like.authorizationPolicies;
  }
}

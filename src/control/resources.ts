/** What the control plane serves: the resources of both types, ready to be sent, and news of what has changed. */

export interface Resource {
  /** A workload's uid, a service's `namespace/hostname`, or a policy's `namespace/name` (control-01 §7.1). */
  readonly name: string;
  /** Of an address: xxHash64 (seed 0) of `body` in lower-case hex. Of a policy: "". */
  readonly version: string;
  /** The serialized `istio.workload.Address` or `istio.security.Authorization`; the same content is always the same bytes. */
  readonly body: Uint8Array;
}

/** Names that were added, altered or removed; look them up to learn which. */
export interface ResourceChange {
  readonly addresses: ReadonlySet<string>;
  readonly policies: ReadonlySet<string>;
  /**
   * Those of the policies that held for a namespace or for all, until they were removed perhaps, and hold now for the
   * workloads that list them: they are sent after the addresses, for otherwise they would hold for nobody meanwhile.
   */
  readonly narrowed: ReadonlySet<string>;
  /** Those of the policies that there were not before. */
  readonly added: ReadonlySet<string>;
}

/** An address that was asked for by any of its names (control-01 §7.4). */
export interface AddressMatch {
  readonly resource: Resource;
  /** Workloads of a service; none for a workload. */
  readonly workloads: readonly Resource[];
}

export interface MeshResources {
  address(name: string): Resource | null;
  policy(name: string): Resource | null;
  addresses(): Iterable<Resource>;
  policies(): Iterable<Resource>;
  /** Whether there is such a policy that holds for workloads without being listed by them. */
  holdsUnlisted(policy: string): boolean;
  counts(): { readonly addresses: number; readonly policies: number };
  /** By uid, `network/ip` or `namespace/hostname`; several workloads or services may share an address. Empty when nothing is found. */
  find(key: string): readonly AddressMatch[];
  /** Other names that find the address, for clients on demand: `network/ip` of each address, `network/ip/length` of a CIDR. */
  aliases(name: string): readonly string[];
  /** Workloads of a service; null when the name is no service. */
  workloadsOf(service: string): Iterable<Resource> | null;
  workloadsOn(node: string): Iterable<Resource>;
  /** Called after each batch of changes, with no more than what has really changed. */
  onChange(listener: (change: ResourceChange) => void): void;
  /**
   * Tells the listeners what has changed so far, if anything has, though the batch is not over: before resources are looked
   * up that are sent in the order of their changes.
   */
  announce(): void;
}

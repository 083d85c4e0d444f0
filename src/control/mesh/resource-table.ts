import { compareText } from '../objects/metadata.ts';
import type { AddressMatch, MeshResources, Resource, ResourceChange } from '../resources.ts';
import { MultiMap } from './multi-map.ts';
import { xxHash64 } from './xxhash64.ts';

/** What a workload or a service can be found by, besides its name. */
export interface Found {
  /** `network/ip` of each address, `network/ip/length` of a block. */
  readonly addresses: readonly string[];
  /** Names of the services that a workload serves; null for a service. */
  readonly services: readonly string[] | null;
  /** "" for none. */
  readonly node: string;
}

export interface ResourceTable extends MeshResources {
  setAddress(name: string, body: Uint8Array, found: Found): void;
  /** @param isListed whether it holds only for workloads that list it */
  setPolicy(name: string, body: Uint8Array, isListed: boolean): void;
  removeAddress(name: string): void;
  removePolicy(name: string): void;
}

interface Entry extends Resource, Found {}

interface PolicyEntry extends Resource {
  readonly isListed: boolean;
}

export function createResourceTable(): ResourceTable {
  const addresses = new Map<string, Entry>();
  const policies = new Map<string, PolicyEntry>();
  /** Workloads by `network/ip`. */
  const byIp = new MultiMap<string, Entry>();
  /** Services by `network/ip`; a block by its network address. */
  const byVip = new MultiMap<string, Entry>();
  const workloadsByService = new MultiMap<string, Entry>();
  const workloadsByNode = new MultiMap<string, Entry>();
  const listeners: ((change: ResourceChange) => void)[] = [];
  let changed = noChange();
  /** Policies that held for workloads that did not list them, and are gone: the latest of them. */
  const wideBefore = new Set<string>();

  function put(entry: Entry): void {
    addresses.set(entry.name, entry);
    const byAddress = entry.services === null ? byVip : byIp;
    for (const address of entry.addresses) byAddress.add(withoutLength(address), entry);
    for (const service of entry.services ?? []) workloadsByService.add(service, entry);
    if (entry.node !== '') workloadsByNode.add(entry.node, entry);
  }

  function take(entry: Entry): void {
    addresses.delete(entry.name);
    const byAddress = entry.services === null ? byVip : byIp;
    for (const address of entry.addresses) byAddress.delete(withoutLength(address), entry);
    for (const service of entry.services ?? []) workloadsByService.delete(service, entry);
    if (entry.node !== '') workloadsByNode.delete(entry.node, entry);
  }

  const matchOf = (resource: Entry): AddressMatch => ({
    resource,
    workloads: resource.services === null ? [...workloadsByService.get(resource.name)] : [],
  });

  return {
    setAddress(name, body, found) {
      const before = addresses.get(name);
      if (before !== undefined) {
        if (isSame(before.body, body)) return;
        take(before);
      }
      put(entryOf(name, body, found));
      changed.addresses.add(name);
    },
    removeAddress(name) {
      const before = addresses.get(name);
      if (before === undefined) return;
      take(before);
      changed.addresses.add(name);
    },
    setPolicy(name, body, isListed) {
      const before = policies.get(name);
      if (before !== undefined && isSame(before.body, body)) return;
      policies.set(name, { name, version: '', body, isListed });
      if (before === undefined && !changed.policies.has(name)) changed.added.add(name);
      changed.policies.add(name);
      const wasWide = wideBefore.delete(name) || before?.isListed === false;
      if (wasWide && isListed) changed.narrowed.add(name);
    },
    holdsUnlisted: (name) => policies.get(name)?.isListed === false,
    removePolicy(name) {
      const before = policies.get(name);
      if (before === undefined) return;
      policies.delete(name);
      changed.policies.add(name);
      if (before.isListed) return;
      wideBefore.add(name);
      if (wideBefore.size > MAX_WIDE_BEFORE)
        for (const oldest of wideBefore.values().take(1)) wideBefore.delete(oldest);
    },
    announce() {
      const change = changed;
      if (change.addresses.size === 0 && change.policies.size === 0) return;
      changed = noChange();
      for (const listener of listeners) listener(change);
    },
    address: (name) => addresses.get(name) ?? null,
    policy: (name) => policies.get(name) ?? null,
    addresses: () => addresses.values(),
    policies: () => policies.values(),
    counts: () => ({ addresses: addresses.size, policies: policies.size }),
    find(key) {
      const named = addresses.get(key);
      if (named !== undefined) return [matchOf(named)];
      const workloads = [...byIp.get(key)];
      if (workloads.length > 0) return workloads.map(matchOf);
      // All that share the address: whose it is for a caller, the agent decides, as it does when it is told of everything.
      return [...byVip.get(key)].sort((a, b) => compareText(a.name, b.name)).map(matchOf);
    },
    aliases: (name) => addresses.get(name)?.addresses ?? [],
    workloadsOf: (service) => (addresses.get(service)?.services === null ? workloadsByService.get(service) : null),
    workloadsOn: (node) => workloadsByNode.get(node),
    onChange: (listener) => {
      listeners.push(listener);
    },
  };
}

/** Whoever makes a policy anew does it soon after its end. */
const MAX_WIDE_BEFORE = 10_000;

function noChange() {
  return {
    addresses: new Set<string>(),
    policies: new Set<string>(),
    narrowed: new Set<string>(),
    added: new Set<string>(),
  };
}

/** Field by field: what is spread is kept in two pieces, for each of 200 000. */
function entryOf(name: string, body: Uint8Array, { addresses, services, node }: Found): Entry {
  return { name, version: xxHash64(body), body, addresses, services, node };
}

/** `network/ip` of `network/ip/length`. */
function withoutLength(address: string): string {
  const slash = address.lastIndexOf('/');
  return address.indexOf('/') === slash ? address : address.slice(0, slash);
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

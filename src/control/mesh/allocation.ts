/**
 * Addresses for hosts of ServiceEntries that have none (control-01 §4.4): one of each family per host, which a client gets
 * from DNS and the agent knows the host by. They are kept in the object's status, so that they outlive every replica.
 */
import { canonicalIp, cidrContains, formatIp, type IpWords, parseCidr, parseIp } from '../../netns/address.ts';
import { byAge, keyOf } from '../objects/metadata.ts';
import type { HostAddress, ServiceEntry } from '../objects/service-entry.ts';
import type { MeshSettings } from './settings.ts';
import type { AddressUpdate } from './statuses.ts';

type AllocationSettings = Pick<MeshSettings, 'allocateAddresses' | 'ipv4Pool' | 'ipv6Pool'>;

/** Addresses that a host of the entry was given before; nothing for an entry that is to have none. */
export function allocatedTo(entry: ServiceEntry, host: string, settings: AllocationSettings): readonly string[] {
  if (entry.allocated.length === 0 || !settings.allocateAddresses || !wantsAddresses(entry)) return [];
  let byHost = allocatedByHost.get(entry);
  if (byHost === undefined) {
    byHost = Map.groupBy(entry.allocated, (each) => each.host);
    allocatedByHost.set(entry, byHost);
  }
  return byHost.get(host)?.map(({ value }) => value) ?? [];
}

/** There may be thousands of hosts, each of which asks for its own. */
const allocatedByHost = new WeakMap<ServiceEntry, Map<string, HostAddress[]>>();

export interface Allocator {
  /**
   * What is to be written to the status of entries that do not have what they should. Of two that hold the same address
   * the older keeps it; an address that a user gave to an entry is not given to another. One decision at a time.
   */
  decide(entries: Iterable<ServiceEntry>): Generator<void, AddressUpdate[]>;
}

/**
 * Addresses are given out in order, after all that were ever seen to be held: one that has become free is not given to
 * another host while clients may remember it, until the block is used up.
 *
 * @throws Error when a pool is no CIDR block
 */
export function createAllocator(settings: AllocationSettings): Allocator {
  const pools = [createPool(settings.ipv4Pool), createPool(settings.ipv6Pool)];

  /** What the entry keeps of what it has. */
  function keep(entry: ServiceEntry): readonly HostAddress[] {
    const hosts = new Set(hostsToServe(entry));
    const slots = new Set<string>();
    return entry.allocated.filter(({ host, value }) =>
      pools.some((pool, index) => {
        const slot = `${index} ${host}`;
        if (!hosts.has(host) || slots.has(slot) || !pool.claim(value)) return false;
        slots.add(slot);
        return true;
      }),
    );
  }

  return {
    *decide(entries) {
      if (!settings.allocateAddresses) return [];
      const sorted = [...entries].sort(byAge);
      for (const pool of pools) pool.clear();
      for (const { addresses } of sorted) {
        for (const address of addresses) for (const pool of pools) pool.reserve(address);
        yield;
      }
      const kept = new Map<ServiceEntry, readonly HostAddress[]>();
      for (const entry of sorted) {
        kept.set(entry, keep(entry));
        yield;
      }
      const updates: AddressUpdate[] = [];
      for (const entry of sorted) {
        const held = Map.groupBy(kept.get(entry)!, ({ host }) => host);
        const addresses = hostsToServe(entry).flatMap((host) =>
          pools.flatMap((pool) => {
            const known = held.get(host)?.find(({ value }) => pool.contains(value));
            const value = known?.value ?? pool.next();
            return value === null ? [] : [{ host, value }];
          }),
        );
        if (!isSame(addresses, entry.allocated)) updates.push({ key: keyOf(entry), addresses });
        yield;
      }
      return updates;
    },
  };
}

/** Whether the entry has the same part in the allocation as before. */
export function isSameForAllocation(before: ServiceEntry | null, after: ServiceEntry | null): boolean {
  if (before === null || after === null) return before === after;
  return (
    before.created === after.created &&
    wantsAddresses(before) === wantsAddresses(after) &&
    isEqual(before.addresses, after.addresses) &&
    isEqual(hostsToServe(before), hostsToServe(after)) &&
    isSame(before.allocated, after.allocated)
  );
}

function wantsAddresses(entry: ServiceEntry): boolean {
  return (
    entry.resolution !== 'NONE' &&
    entry.addresses.length === 0 &&
    entry.labels['networking.istio.io/enable-autoallocate-ip']?.toLowerCase() !== 'false'
  );
}

function hostsToServe(entry: ServiceEntry): string[] {
  if (!wantsAddresses(entry)) return [];
  return [...new Set(entry.hosts)].filter((host) => !host.includes('*') || entry.resolution === 'DYNAMIC_DNS');
}

function isEqual(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((each, index) => each === b[index]);
}

function isSame(a: readonly HostAddress[], b: readonly HostAddress[]): boolean {
  return (
    a.length === b.length && a.every(({ host, value }, index) => host === b[index]!.host && value === b[index]!.value)
  );
}

interface Pool {
  /** Forgets who has what, but not how far it got. */
  clear(): void;
  contains(address: string): boolean;
  /** Keeps an address, or the first one of a block, from being given out. */
  reserve(address: string): void;
  /** Whether the address is of the pool and nobody else's; it is taken then. */
  claim(address: string): boolean;
  /** The next free address; null when there is none. */
  next(): string | null;
}

/** @throws Error when the pool is no CIDR block */
function createPool(block: string): Pool {
  const cidr = parseCidr(block);
  if (cidr === null) throw new Error(`${block} is no CIDR block`);
  const bits = (cidr.family === 4 ? 32 : 128) - cidr.length;
  // More than anybody will ever have; keeps the numbers exact.
  const size = 2 ** Math.min(bits, 32);
  const word = cidr.family === 4 ? 0 : 3;
  const taken = new Set<string>();
  /** The highest that was ever seen to be held. What was decided but never written is not. */
  let highest = 0;
  /** The last one that was given in this decision; null once there are none. */
  let last: number | null = 0;

  const contains = (address: string) => {
    const ip = parseIp(address);
    return ip !== null && cidrContains(cidr, ip);
  };
  const at = (offset: number) => {
    const words = [...cidr.words] as [number, number, number, number];
    words[word] = (words[word]! + offset) >>> 0;
    return formatIp({ family: cidr.family, words } as IpWords);
  };
  const take = (address: string) => {
    taken.add(address);
    highest = Math.max(highest, offsetOf(address));
    last = highest;
  };
  const offsetOf = (address: string) => {
    const { words } = parseIp(address)!;
    const isNear = words.every((each, index) => index === word || each === cidr.words[index]);
    return isNear ? words[word]! - cidr.words[word]! : 0;
  };

  return {
    contains,
    clear() {
      taken.clear();
      last = highest;
    },
    reserve(address) {
      const ip = canonicalIp(address.split('/', 1)[0]!);
      if (ip !== null && contains(ip)) take(ip);
    },
    claim(address) {
      const ip = canonicalIp(address);
      if (ip === null || !contains(ip) || taken.has(ip)) return false;
      take(ip);
      return true;
    },
    next() {
      if (last === null) return null;
      // The first address of a block is the network's.
      for (const start of [last + 1, 1]) {
        for (let offset = start; offset < size; offset++) {
          const address = at(offset);
          if (taken.has(address)) continue;
          taken.add(address);
          last = offset;
          return address;
        }
      }
      last = null;
      return null;
    },
  };
}

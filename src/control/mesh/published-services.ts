/** Which Service or host of a ServiceEntry is the service of its name, and which of one name is canonical (control-01 §4.4). */
import { byAge, type Labels } from '../objects/metadata.ts';
import type { Service } from '../objects/service.ts';
import type { ServiceEntry } from '../objects/service-entry.ts';
import type { Visibility } from './messages.ts';
import { MultiMap } from './multi-map.ts';

export type PublishedService = PublishedBy<'Service', Service> | PublishedBy<'ServiceEntry', ServiceEntry>;

interface PublishedBy<Kind, T> {
  /** `namespace/hostname` */
  readonly key: string;
  readonly hostname: string;
  readonly kind: Kind;
  readonly object: T;
  /** Empty: selects nothing. */
  readonly selector: Labels;
  readonly visibility: Visibility;
}

/** Another candidate has become the service of the key, or the same in another version; null for none. */
export type ServiceChange = (key: string, before: PublishedService | null, after: PublishedService | null) => void;

export interface PublishedServices {
  /** Replaces what an object published before. */
  publish(owner: string, services: readonly PublishedService[]): void;
  get(key: string): PublishedService | null;
  isCanonical(service: PublishedService): boolean;
  keys(): Iterable<string>;
}

/** @param onCanonical another service has become the canonical one of its hostname, or is it no more */
export function createPublishedServices(
  onChange: ServiceChange,
  onCanonical: (key: string) => void,
): PublishedServices {
  const byOwner = new Map<string, readonly PublishedService[]>();
  const candidates = new MultiMap<string, PublishedService>();
  const winners = new Map<string, PublishedService>();
  /** Winners of all namespaces by hostname. */
  const byHostname = new MultiMap<string, PublishedService>();
  /** By hostname. */
  const canonical = new Map<string, string>();

  function elect(key: string): void {
    const before = winners.get(key) ?? null;
    const after = best(candidates.get(key));
    if (before === after) return;
    if (before !== null) byHostname.delete(before.hostname, before);
    if (after === null) winners.delete(key);
    else {
      winners.set(key, after);
      byHostname.add(after.hostname, after);
    }
    onChange(key, before, after);
    electCanonical((after ?? before)!.hostname);
  }

  function electCanonical(hostname: string): void {
    const before = canonical.get(hostname);
    const after = best([...byHostname.get(hostname)].filter(({ visibility }) => visibility === 'Public'))?.key;
    if (before === after) return;
    if (after === undefined) canonical.delete(hostname);
    else canonical.set(hostname, after);
    for (const key of [before, after]) if (key !== undefined && winners.has(key)) onCanonical(key);
  }

  return {
    publish(owner, services) {
      const before = byOwner.get(owner) ?? [];
      if (services.length === 0) byOwner.delete(owner);
      else byOwner.set(owner, services);
      for (const service of before) candidates.delete(service.key, service);
      for (const service of services) candidates.add(service.key, service);
      for (const key of new Set([...before, ...services].map((service) => service.key))) elect(key);
    },
    get: (key) => winners.get(key) ?? null,
    isCanonical: ({ hostname, key }) => canonical.get(hostname) === key,
    keys: () => winners.keys(),
  };
}

/** A Service before any ServiceEntry, then the oldest. */
function best(services: Iterable<PublishedService>): PublishedService | null {
  let best: PublishedService | null = null;
  for (const service of services) if (best === null || precedes(service, best)) best = service;
  return best;
}

function precedes(a: PublishedService, b: PublishedService): boolean {
  if (a.kind !== b.kind) return a.kind === 'Service';
  return byAge(a.object, b.object) < 0;
}

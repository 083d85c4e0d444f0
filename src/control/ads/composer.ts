/**
 * Puts responses together. What many clients are sent is put together once: a snapshot of everything for those that come
 * with nothing, and the changes from one place of the log to its head for those that are at that place.
 */
import { runInSlices } from '../../slices.ts';
import type { MeshResources, Resource } from '../resources.ts';
import type { ChangeLog } from './change-log.ts';
import { prepareResponse, type Response, type ResponseContent } from './response.ts';
import { type ServedType, servicesIn } from './types.ts';
import type { Owed, Wanted } from './watch.ts';

/** Calls back with the response: at once when it is small, else when it has been put together in steps. */
export type Prepared = (taken: (response: Response) => void) => void;

export interface LastPolicies {
  readonly put: readonly Resource[];
  readonly removed: readonly string[];
}

export interface Composer {
  /** Everything there is of a type, and the place of the log that it stands for: `notBefore` or a later one. */
  snapshot(type: ServedType, notBefore: number): { readonly prepared: Prepared; readonly position: number };
  /**
   * The same for one client alone, with names that are gone. Null when there is nothing.
   * @param late names of policies that come last, see `policiesPut`
   */
  everything(type: ServedType, removed: readonly string[], late?: ReadonlySet<string>): Prepared | null;
  /** Everything that a client does not hold in that version, and what it holds that is gone. */
  difference(type: ServedType, versions: ReadonlyMap<string, string>): Prepared;
  /** What comes after the addresses of the same changes. */
  afterAddresses(type: ServedType, last: LastPolicies): Prepared;
  /** What changed from a place on, for a client that wants everything; null when that is nothing. */
  changes(type: ServedType, from: number): Prepared | null;
  /** Policies that were narrowed after `lastFrom`, and that who is at `from` holds in their wider form. */
  narrowedHeld(from: number, lastFrom: number): ReadonlySet<string>;
  /**
   * Policies that were added or altered, but for those that come last. Null when there are none.
   * @param lastFrom the place from which on nothing that comes last was sent
   * @param late names of further policies that come last, but for those that hold for workloads that do not list them
   */
  policiesPut(type: ServedType, from: number, lastFrom: number, late: ReadonlySet<string>): Prepared | null;
  /**
   * Policies that come last: narrowed ones and removals of changes before a place, and further ones that have not changed
   * since then.
   */
  policiesLast(from: number, before: number, late: ReadonlySet<string>): LastPolicies;
  /** The answer to who asked by name. Takes note of what it holds then. */
  named(type: ServedType, wanted: Named, owed: Owed, node: string): Prepared;
  /** What changed from a place on, of what such a client holds, has asked for, or is to have. */
  namedChanges(type: ServedType, wanted: Named, from: number, node: string): Prepared | null;
  /** Places of the log that are still needed. */
  oldestPosition(): number;
  close(): void;
}

export type Named = Extract<Wanted, { kind: 'named' }>;

export function createComposer(resources: MeshResources, log: ChangeLog): Composer {
  const snapshots = new Map<ServedType, Snapshot>();
  /** By type and place, as long as the head of the log is where it was. */
  let pushes = new Map<string, Prepared | null>();
  let pushesHead = -1;

  /** Read once for all clients. */
  const services = new WeakMap<Resource, readonly string[]>();
  const servicesOf = (resource: Resource) => {
    let found = services.get(resource);
    if (found === undefined) {
      found = servicesIn(resource.body);
      services.set(resource, found);
    }
    return found;
  };

  const versionNow = () => `${new Date().toISOString()}/${log.head}`;

  function content(type: ServedType, more: Partial<ResponseContent>): ResponseContent {
    return { type, version: versionNow(), resources: [], aliases: null, removed: [], shared: false, ...more };
  }

  function shared(key: string, make: () => Prepared | null): Prepared | null {
    if (pushesHead !== log.head) {
      pushesHead = log.head;
      pushes = new Map();
    }
    let found = pushes.get(key);
    if (found === undefined) {
      found = make();
      pushes.set(key, found);
    }
    return found;
  }

  /** Resources by the names of a change, and those names that are no more. A service comes with its workloads (§7.3). */
  function lookUp(type: ServedType, names: ReadonlySet<string>): { found: Map<string, Resource>; removed: string[] } {
    const found = new Map<string, Resource>();
    const removed: string[] = [];
    for (const name of names) {
      const resource = type.get(resources, name);
      if (resource === null) removed.push(name);
      else addWithWorkloads(type, resource, found);
    }
    return { found, removed };
  }

  function narrowedHeld(from: number, lastFrom: number): ReadonlySet<string> {
    const unknown = log.since(from).added.difference(log.between(lastFrom, from).policies);
    return log.since(lastFrom).narrowed.difference(unknown);
  }

  function allOf(type: ServedType): Resource[] {
    const all = [...type.all(resources)];
    return type.isPart ? all.filter((resource) => type.value(resource.body) !== null) : all;
  }

  function addWithWorkloads(type: ServedType, resource: Resource, into: Map<string, Resource>): void {
    add(type, resource, into);
    if (type.kind === 'addresses') {
      for (const workload of resources.workloadsOf(resource.name) ?? []) add(type, workload, into);
    }
  }

  return {
    snapshot(type, notBefore) {
      const held = snapshots.get(type);
      if (held !== undefined && held.position >= notBefore && isFresh(held)) return held;
      held?.drop();
      const all = allOf(type);
      const prepared = prepare(content(type, { resources: all, shared: true }));
      const drop = () => {
        clearTimeout(timer);
        snapshots.delete(type);
        prepared((response) => response.release());
      };
      const timer = setTimeout(drop, SNAPSHOT_MS).unref();
      const snapshot: Snapshot = { prepared, position: log.head, size: all.length, drop };
      snapshots.set(type, snapshot);
      return snapshot;
    },

    everything(type, removed, late = NO_NAMES) {
      const sent = allOf(type).filter(({ name }) => !late.has(name) || resources.holdsUnlisted(name));
      return sent.length === 0 && removed.length === 0 ? null : prepare(content(type, { resources: sent, removed }));
    },

    // As they are in this moment: what changes while they are compared is sent by the next push.
    difference: (type, versions) => preparedBy(compare(allOf(type), versions, content(type, {}))),

    afterAddresses: (type, { put, removed }) => prepare(content(type, { resources: put, removed })),

    changes(type, from) {
      return shared(`${type.url} ${from}`, () => {
        const { found, removed } = lookUp(type, log.since(from).addresses);
        if (found.size === 0 && removed.length === 0) return null;
        return prepare(content(type, { resources: [...found.values()], removed, shared: true }));
      });
    },

    narrowedHeld,

    policiesPut(type, from, lastFrom, late) {
      const isShared = late.size === 0;
      const put = () => {
        const last = narrowedHeld(from, lastFrom).union(late);
        const { found } = lookUp(type, log.since(from).policies);
        const sent = [...found.values()].filter(({ name }) => !last.has(name) || resources.holdsUnlisted(name));
        return sent.length === 0 ? null : prepare(content(type, { resources: sent, shared: isShared }));
      };
      return isShared ? shared(`${type.url} ${from} ${lastFrom}`, put) : put();
    },

    policiesLast(from, before, late) {
      const later = log.since(before);
      const { policies, narrowed } = log.between(from, before);
      const settled = late.difference(later.policies);
      return {
        // What was narrowed, or went, again later comes later.
        put: [...narrowed.difference(later.narrowed).union(settled)].flatMap((name) => resources.policy(name) ?? []),
        removed: [...policies.difference(later.policies).union(settled)].filter(
          (name) => resources.policy(name) === null,
        ),
      };
    },

    named(type, wanted, { names, versions, again }, node) {
      const found = new Map<string, Resource>();
      const removed: string[] = [];
      for (const name of new Set([...names, ...versions.keys()])) {
        const matches = resources.find(name);
        if (matches.length === 0) removed.push(name);
        for (const { resource, workloads } of matches) {
          add(type, resource, found);
          for (const workload of workloads) add(type, workload, found);
        }
      }
      addLocal(type, wanted, node, found);
      for (const name of removed) wanted.held.delete(name);
      for (const name of found.keys()) wanted.held.add(name);
      const sent = [...found.values()].filter(({ name, version }) => again || versions.get(name) !== version);
      return prepare(content(type, { resources: sent, aliases: aliasesOf(sent), removed }));
    },

    namedChanges(type, wanted, from, node) {
      const { asked, held } = wanted;
      const found = new Map<string, Resource>();
      const removed: string[] = [];
      const isWanted = (resource: Resource) =>
        held.has(resource.name) ||
        asked.has(resource.name) ||
        resources.aliases(resource.name).some((alias) => asked.has(alias)) ||
        servicesOf(resource).some((service) => held.has(service));
      for (const name of log.since(from).addresses) {
        const resource = type.get(resources, name);
        if (resource === null) {
          if (held.delete(name) || asked.has(name)) removed.push(name);
        } else if (isWanted(resource)) addWithWorkloads(type, resource, found);
      }
      addLocal(type, wanted, node, found);
      if (found.size === 0 && removed.length === 0) return null;
      for (const name of found.keys()) held.add(name);
      const sent = [...found.values()];
      return prepare(content(type, { resources: sent, aliases: aliasesOf(sent), removed }));
    },

    oldestPosition() {
      let oldest = log.head;
      for (const { position } of snapshots.values()) oldest = Math.min(oldest, position);
      return oldest;
    },

    close() {
      for (const { drop } of [...snapshots.values()]) drop();
    },
  };

  /** A client that was sent an older snapshot is sent what changed since, at once. Policies are never older (§7.6). */
  function isFresh({ position, size }: Snapshot): boolean {
    if (position < log.start || log.policiesSince(position)) return false;
    return log.since(position).addresses.size <= Math.max(SNAPSHOT_CHANGES, size * SNAPSHOT_SHARE);
  }

  /** What runs on the client's own node is always told (§7.4). */
  function addLocal(type: ServedType, { held }: Named, node: string, into: Map<string, Resource>): void {
    if (node === '') return;
    for (const workload of resources.workloadsOn(node)) if (!held.has(workload.name)) add(type, workload, into);
  }

  function aliasesOf(sent: readonly Resource[]): Map<string, readonly string[]> {
    return new Map(sent.map(({ name }) => [name, resources.aliases(name)]));
  }
}

interface Snapshot {
  readonly prepared: Prepared;
  readonly position: number;
  readonly size: number;
  drop(): void;
}

function add(type: ServedType, resource: Resource, into: Map<string, Resource>): void {
  if (type.value(resource.body) !== null) into.set(resource.name, resource);
}

/** What differs from the versions that a client reported, and what of it is gone. */
function* compare(
  all: readonly Resource[],
  versions: ReadonlyMap<string, string>,
  content: ResponseContent,
): Generator<void, Response> {
  const resources: Resource[] = [];
  const kept = new Set<string>();
  let steps = 0;
  for (const resource of all) {
    if (++steps % COMPARISONS_PER_STEP === 0) yield;
    const version = versions.get(resource.name);
    if (version !== undefined) kept.add(resource.name);
    if (version !== resource.version || version === '') resources.push(resource);
  }
  const removed: string[] = [];
  for (const name of versions.keys()) {
    if (++steps % COMPARISONS_PER_STEP === 0) yield;
    if (!kept.has(name)) removed.push(name);
  }
  return yield* prepareResponse({ ...content, resources, removed });
}

function prepare(content: ResponseContent): Prepared {
  return preparedBy(prepareResponse(content));
}

/** Does the work once, whoever asks for its result. */
function preparedBy(work: Generator<void, Response>): Prepared {
  let response: Response | null = null;
  const waiting: ((response: Response) => void)[] = [];
  runInSlices(work, (done) => {
    response = done;
    for (const taken of waiting.splice(0)) taken(done);
  });
  return (taken) => {
    if (response === null) waiting.push(taken);
    else taken(response);
  };
}

const NO_NAMES: ReadonlySet<string> = new Set();
/** How long a snapshot is used for further clients: it takes as much memory as all resources together. */
const SNAPSHOT_MS = 10_000;
/** So many changes after a snapshot, or that share of its resources, are cheaper than another one. */
const SNAPSHOT_CHANGES = 100;
const SNAPSHOT_SHARE = 0.05;
const COMPARISONS_PER_STEP = 1000;

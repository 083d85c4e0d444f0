/**
 * What has changed, in order. A client's place in it is one number, so that a thousand clients that are behind cost no more
 * than one, and clients at the same place are sent the same bytes.
 */
import type { ResourceChange } from '../resources.ts';

export interface ChangeLog {
  /** Changes from this place on are held. */
  readonly start: number;
  /** The place after the last change. Places rise by one with each change. */
  readonly head: number;
  /** Names that the log holds. */
  readonly size: number;
  append(change: ResourceChange): void;
  /** Names that changed from a place on. @param from `start` or later */
  since(from: number): ResourceChange;
  /** The same, up to the change before another place. */
  between(from: number, before: number): ResourceChange;
  /** Whether a policy changed from a place on. */
  policiesSince(from: number): boolean;
  /** When the first change from a place on was made, by `performance.now()`; null when there is none. */
  firstAt(from: number): number | null;
  /** Lets go of changes before a place. */
  forget(before: number): void;
  /** The first place from which on changes are held, when the latest of them have no more than so many names. */
  startOfLatest(names: number): number;
}

interface Entry extends ResourceChange {
  readonly at: number;
}

export function createChangeLog(now: () => number = () => performance.now()): ChangeLog {
  const entries: Entry[] = [];
  /** Place of the first entry. */
  let start = 0;
  let size = 0;
  /** The last change of policies lies before this place. */
  let policiesEnd = 0;
  const merged = new Map<number, ResourceChange>();

  return {
    get start() {
      return start;
    },
    get head() {
      return start + entries.length;
    },
    get size() {
      return size;
    },
    append({ addresses, policies, narrowed, added }) {
      entries.push({ addresses, policies, narrowed, added, at: now() });
      size += addresses.size + policies.size;
      if (policies.size > 0) policiesEnd = start + entries.length;
      merged.clear();
    },
    since(from) {
      const found = merged.get(from);
      if (found !== undefined) return found;
      const some = entries.slice(from - start);
      const change = some.length === 1 ? some[0]! : union(some);
      merged.set(from, change);
      return change;
    },
    between: (from, before) => union(entries.slice(from - start, before - start)),
    policiesSince: (from) => from < policiesEnd,
    firstAt: (from) => entries[from - start]?.at ?? null,
    forget(before) {
      const count = Math.min(before - start, entries.length);
      if (count <= 0) return;
      for (const { addresses, policies } of entries.splice(0, count)) size -= addresses.size + policies.size;
      start += count;
      for (const from of merged.keys()) if (from < start) merged.delete(from);
    },
    startOfLatest(names) {
      let left = names;
      let index = entries.length;
      while (index > 0) {
        const { addresses, policies } = entries[index - 1]!;
        left -= addresses.size + policies.size;
        if (left < 0) break;
        index--;
      }
      return start + index;
    },
  };
}

function union(changes: readonly ResourceChange[]): ResourceChange {
  const addresses = new Set<string>();
  const policies = new Set<string>();
  const narrowed = new Set<string>();
  const added = new Set<string>();
  for (const change of changes) {
    for (const name of change.addresses) addresses.add(name);
    for (const name of change.added) if (!policies.has(name)) added.add(name);
    for (const name of change.policies) policies.add(name);
    for (const name of change.narrowed) narrowed.add(name);
  }
  return { addresses, policies, narrowed, added };
}

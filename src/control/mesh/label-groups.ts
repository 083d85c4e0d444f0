import { isSubset, type Labels } from '../objects/metadata.ts';
import { MultiMap } from './multi-map.ts';

export interface Labelled {
  readonly namespace: string;
  readonly labels: Labels;
}

interface Group<T> {
  readonly labels: Labels;
  readonly items: Set<T>;
}

/**
 * What has some labels, found by a selector. Pods of one deployment share their labels and are one group; groups are filed
 * under each of their labels, so that a selector is compared with few of them.
 */
export class LabelGroups<T extends Labelled> {
  readonly #namespaces = new Map<string, Map<Labels, Group<T>>>();
  readonly #byPair = new MultiMap<string, Group<T>>();

  add(item: T): void {
    const { namespace, labels } = item;
    let groups = this.#namespaces.get(namespace);
    if (groups === undefined) {
      groups = new Map();
      this.#namespaces.set(namespace, groups);
    }
    const group = groups.get(labels);
    if (group !== undefined) {
      group.items.add(item);
      return;
    }
    const fresh = { labels, items: new Set([item]) };
    groups.set(labels, fresh);
    for (const name in labels) this.#byPair.add(pairOf(namespace, name, labels[name]!), fresh);
  }

  delete(item: T): void {
    const { namespace, labels } = item;
    const groups = this.#namespaces.get(namespace);
    const group = groups?.get(labels);
    if (groups === undefined || group === undefined || !group.items.delete(item) || group.items.size > 0) return;
    groups.delete(labels);
    if (groups.size === 0) this.#namespaces.delete(namespace);
    for (const name in labels) this.#byPair.delete(pairOf(namespace, name, labels[name]!), group);
  }

  /** All that a selector matches; an empty one matches all of the namespace. */
  *matching(namespace: string, selector: Labels): Generator<T> {
    for (const { labels, items } of this.#candidates(namespace, selector)) if (isSubset(selector, labels)) yield* items;
  }

  /** Namespaces that have something in them. */
  namespaces(): Iterable<string> {
    return this.#namespaces.keys();
  }

  /** Those that have one of the selector's labels, by the label that the fewest have. */
  #candidates(namespace: string, selector: Labels): Iterable<Group<T>> {
    const pairs = Object.entries(selector).map(([name, value]) => pairOf(namespace, name, value));
    if (pairs.length === 0) return this.#namespaces.get(namespace)?.values() ?? [];
    const size = (pair: string) => this.#byPair.count(pair);
    return this.#byPair.get(pairs.reduce((best, pair) => (size(pair) < size(best) ? pair : best)));
  }
}

/** A label of a namespace, as text. */
export function pairOf(namespace: string, name: string, value: string): string {
  return `${namespace} ${name}=${value}`;
}

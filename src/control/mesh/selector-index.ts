import { isSubset, type Labels } from '../objects/metadata.ts';
import { pairOf } from './label-groups.ts';

/**
 * Which selectors of a namespace match some labels, without looking at all of them: each selector is filed under one of its
 * pairs, the one that the fewest others are filed under.
 */
export class SelectorIndex {
  readonly #filed = new Map<string, Map<string, Labels>>();
  readonly #pairs = new Map<string, string>();

  /** A selector that asks for nothing is not filed: it selects nothing. */
  set(key: string, namespace: string, selector: Labels): void {
    this.delete(key);
    const pairs = Object.entries(selector).map(([name, value]) => pairOf(namespace, name, value));
    if (pairs.length === 0) return;
    const pair = pairs.reduce((best, each) => (this.#sizeOf(each) < this.#sizeOf(best) ? each : best));
    let filed = this.#filed.get(pair);
    if (filed === undefined) {
      filed = new Map();
      this.#filed.set(pair, filed);
    }
    filed.set(key, selector);
    this.#pairs.set(key, pair);
  }

  delete(key: string): void {
    const pair = this.#pairs.get(key);
    if (pair === undefined) return;
    this.#pairs.delete(key);
    const filed = this.#filed.get(pair)!;
    filed.delete(key);
    if (filed.size === 0) this.#filed.delete(pair);
  }

  /** Keys of the selectors of the namespace that match, in no particular order. */
  matching(namespace: string, labels: Labels): string[] {
    const keys: string[] = [];
    if (this.#pairs.size === 0) return keys;
    for (const name in labels) {
      for (const [key, selector] of this.#filed.get(pairOf(namespace, name, labels[name]!)) ?? [])
        if (isSubset(selector, labels)) keys.push(key);
    }
    return keys;
  }

  #sizeOf(pair: string): number {
    return this.#filed.get(pair)?.size ?? 0;
  }
}

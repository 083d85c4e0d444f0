import { isSubset, type Labels } from '../objects/metadata.ts';
import { pairOf } from './label-groups.ts';

/**
 * Which selectors of a namespace match some labels, without looking at all of them: each selector is filed under one of its
 * pairs, the one that the fewest others are filed under.
 */
export class SelectorIndex {
  readonly #filed = new Map<string, Map<string, Labels>>();
  readonly #pairs = new Map<string, string>();
  /** Answers for labels, which many pods share, until a selector changes. */
  readonly #answers = new Map<Labels, Answer>();

  /** A selector that asks for nothing is not filed: it selects nothing. */
  set(key: string, namespace: string, selector: Labels): void {
    this.delete(key);
    this.#answers.clear();
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
    this.#answers.clear();
    this.#pairs.delete(key);
    const filed = this.#filed.get(pair)!;
    filed.delete(key);
    if (filed.size === 0) this.#filed.delete(pair);
  }

  /** Keys of the selectors of the namespace that match, in no particular order. */
  matching(namespace: string, labels: Labels): readonly string[] {
    if (this.#pairs.size === 0) return NONE;
    const known = this.#answers.get(labels);
    if (known?.namespace === namespace) return known.keys;
    const keys = this.#find(namespace, labels);
    if (this.#answers.size >= MOST_ANSWERS) this.#answers.clear();
    this.#answers.set(labels, { namespace, keys });
    return keys;
  }

  #find(namespace: string, labels: Labels): readonly string[] {
    const keys: string[] = [];
    for (const name in labels) {
      for (const [key, selector] of this.#filed.get(pairOf(namespace, name, labels[name]!)) ?? [])
        if (isSubset(selector, labels)) keys.push(key);
    }
    return keys.length === 0 ? NONE : keys;
  }

  #sizeOf(pair: string): number {
    return this.#filed.get(pair)?.size ?? 0;
  }
}

interface Answer {
  readonly namespace: string;
  readonly keys: readonly string[];
}

const NONE: readonly string[] = [];
const MOST_ANSWERS = 10_000;

/** Several values under a key. A key with one value, which is the common case, costs no set of its own. */
export class MultiMap<K, V> {
  readonly #map = new Map<K, V | Set<V>>();

  add(key: K, value: V): void {
    const found = this.#map.get(key);
    if (found === undefined) this.#map.set(key, value);
    else if (found instanceof Set) found.add(value);
    else if (found !== value) this.#map.set(key, new Set([found, value]));
  }

  delete(key: K, value: V): void {
    const found = this.#map.get(key);
    if (found === value) this.#map.delete(key);
    else if (found instanceof Set && found.delete(value) && found.size === 0) this.#map.delete(key);
  }

  /** The values of the key, in the order in which they were added. */
  get(key: K): Iterable<V> {
    const found = this.#map.get(key);
    if (found === undefined) return NOTHING;
    return found instanceof Set ? found : [found];
  }

  count(key: K): number {
    const found = this.#map.get(key);
    return found instanceof Set ? found.size : found === undefined ? 0 : 1;
  }
}

const NOTHING: readonly never[] = [];

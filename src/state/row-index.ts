/** What leads to rows of a table. One row per key is the rule, so an array is made only when there are several. */
import { parseIpv4 } from '../netns/address.ts';
import { NOTHING, WordMap } from './word-map.ts';

/** In the order in which they came. */
export type Rows = number | number[];

export interface RowIndex {
  get(key: string): Rows | undefined;
  set(key: string, rows: Rows): unknown;
  delete(key: string): unknown;
}

export function addTo(index: RowIndex, key: string, row: number): void {
  const found = index.get(key);
  if (found === undefined) index.set(key, row);
  else if (typeof found === 'number') index.set(key, [found, row]);
  else found.push(row);
}

export function removeFrom(index: RowIndex, key: string, row: number): void {
  const found = index.get(key);
  if (found === undefined || typeof found === 'number') {
    index.delete(key);
    return;
  }
  found.splice(found.indexOf(row), 1);
  if (found.length === 1) index.set(key, found[0]!);
}

/** Rows by canonical address. IPv4 addresses are kept as numbers, outside of the heap. */
export class AddressIndex implements RowIndex {
  readonly #ipv4 = new WordMap();
  /** The rows of IPv4 addresses that have several. */
  readonly #several = new Map<number, number[]>();
  readonly #others = new Map<string, Rows>();

  get isEmpty(): boolean {
    return this.#others.size === 0 && this.#ipv4.size === 0;
  }

  get(ip: string): Rows | undefined {
    const word = ipv4Word(ip);
    if (word === null) return this.#others.get(ip);
    const row = this.#ipv4.get(word);
    if (row === SEVERAL) return this.#several.get(word);
    return row === NOTHING ? undefined : row;
  }

  set(ip: string, rows: Rows): void {
    const word = ipv4Word(ip);
    if (word === null) {
      this.#others.set(ip, rows);
    } else if (typeof rows === 'number') {
      this.#ipv4.set(word, rows);
      this.#several.delete(word);
    } else {
      this.#ipv4.set(word, SEVERAL);
      this.#several.set(word, rows);
    }
  }

  delete(ip: string): void {
    const word = ipv4Word(ip);
    if (word === null) this.#others.delete(ip);
    else this.#ipv4.delete(word);
  }
}

/** In place of a row. */
const SEVERAL = -2;

/** A signed 32 bit integer; null for what is not IPv4. */
export function ipv4Word(ip: string): number | null {
  const word = parseIpv4(ip);
  return word === null ? null : word | 0;
}

/** What leads to rows of a table. One row per key is the rule, so an array is made only when there are several. */
import { parseIpv4 } from '../netns/address.ts';
import { NOTHING, WordMap } from './word-map.ts';

/** In the order in which they came. */
export type Rows = number | number[];

export interface RowIndex<K> {
  get(key: K): Rows | undefined;
  set(key: K, rows: Rows): unknown;
  delete(key: K): unknown;
}

export function addTo<K>(index: RowIndex<K>, key: K, row: number): void {
  const found = index.get(key);
  if (found === undefined) index.set(key, row);
  else if (typeof found === 'number') index.set(key, [found, row]);
  else found.push(row);
}

export function removeFrom<K>(index: RowIndex<K>, key: K, row: number): void {
  const found = index.get(key);
  if (found === undefined || typeof found === 'number') {
    index.delete(key);
    return;
  }
  found.splice(found.indexOf(row), 1);
  if (found.length === 1) index.set(key, found[0]!);
}

/** Rows by canonical address. Those of IPv4 addresses are kept outside of the heap. */
export class AddressIndex implements RowIndex<string> {
  readonly ipv4 = new Ipv4Index();
  readonly #others = new Map<string, Rows>();

  get isEmpty(): boolean {
    return this.#others.size === 0 && this.ipv4.isEmpty;
  }

  get(ip: string): Rows | undefined {
    const word = ipv4Word(ip);
    return word === null ? this.#others.get(ip) : this.ipv4.get(word);
  }

  set(ip: string, rows: Rows): void {
    const word = ipv4Word(ip);
    if (word === null) this.#others.set(ip, rows);
    else this.ipv4.set(word, rows);
  }

  delete(ip: string): void {
    const word = ipv4Word(ip);
    if (word === null) this.#others.delete(ip);
    else this.ipv4.delete(word);
  }
}

/** Rows by IPv4 address as a signed number. */
class Ipv4Index implements RowIndex<number> {
  readonly #rows = new WordMap();
  /** The rows of addresses that have several. */
  readonly #several = new Map<number, number[]>();

  get isEmpty(): boolean {
    return this.#rows.size === 0;
  }

  get(word: number): Rows | undefined {
    const row = this.#rows.get(word);
    if (row === SEVERAL) return this.#several.get(word);
    return row === NOTHING ? undefined : row;
  }

  set(word: number, rows: Rows): void {
    if (typeof rows === 'number') {
      this.#rows.set(word, rows);
      if (this.#several.size > 0) this.#several.delete(word);
    } else {
      this.#rows.set(word, SEVERAL);
      this.#several.set(word, rows);
    }
  }

  delete(word: number): void {
    this.#rows.delete(word);
  }
}

/** In place of a row. */
const SEVERAL = -2;

/** A signed 32 bit integer; null for what is not IPv4. */
export function ipv4Word(ip: string): number | null {
  const word = parseIpv4(ip);
  return word === null ? null : word | 0;
}

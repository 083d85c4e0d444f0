import { type Cidr, type IpWords, maskTo, parseCidr, parseIp } from '../netns/address.ts';

/** Finds, for an address, everything filed under a block that holds it. One map per prefix length in use. */
export class CidrIndex<T> {
  #levels: Level<T>[] = [];

  add(cidr: string, value: T): void {
    const block = toCidr(cidr);
    const level = this.#level(block) ?? this.#createLevel(block);
    const key = keyOf(block);
    const values = level.blocks.get(key);
    if (values === undefined) level.blocks.set(key, [value]);
    else if (!values.includes(value)) values.push(value);
  }

  remove(cidr: string, value: T): void {
    const block = toCidr(cidr);
    const level = this.#level(block);
    const values = level?.blocks.get(keyOf(block));
    const at = values?.indexOf(value) ?? -1;
    if (level === undefined || values === undefined || at < 0) return;
    values.splice(at, 1);
    if (values.length === 0) level.blocks.delete(keyOf(block));
    if (level.blocks.size === 0) this.#levels = this.#levels.filter((other) => other !== level);
  }

  get isEmpty(): boolean {
    return this.#levels.length === 0;
  }

  /** Calls `visit` for every value whose block holds the address, with the length of its prefix, in no order. */
  match(ip: string, visit: (value: T, length: number) => void): void {
    const address = parseIp(ip);
    if (address === null) return;
    for (const level of this.#levels) {
      if (level.family !== address.family) continue;
      const values = level.blocks.get(keyOf(maskTo(address, level.length)));
      if (values !== undefined) for (const value of values) visit(value, level.length);
    }
  }

  #level({ family, length }: Cidr): Level<T> | undefined {
    return this.#levels.find((level) => level.family === family && level.length === length);
  }

  #createLevel({ family, length }: Cidr): Level<T> {
    const level: Level<T> = { family, length, blocks: new Map() };
    this.#levels.push(level);
    return level;
  }
}

interface Level<T> {
  readonly family: 4 | 6;
  readonly length: number;
  /** masked address → values */
  readonly blocks: Map<number | string, T[]>;
}

function keyOf({ family, words }: IpWords): number | string {
  if (family === 4) return words[0];
  const [a, b, c, d] = words;
  // The shortest text that tells blocks apart, and the cheapest to make: one is needed for each length in use.
  return String.fromCharCode(a >>> 16, a & 0xffff, b >>> 16, b & 0xffff, c >>> 16, c & 0xffff, d >>> 16, d & 0xffff);
}

function toCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  // Sources check their blocks, so this is a programming error.
  if (cidr === null) throw new TypeError(`not an address block: ${text}`);
  return cidr;
}

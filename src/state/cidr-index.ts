import { type Cidr, type IpWords, parseCidr, parseIp } from '../netns/address.ts';

/**
 * Finds, for an address, everything filed under a block that holds it. One map per prefix length in use, by a hash of the
 * masked address: a look-up makes no text and no object per length (`npm run bench -- mesh`).
 */
export class CidrIndex<T> {
  #levels: Level<T>[] = [];

  add(cidr: string, value: T): void {
    const block = toCidr(cidr);
    const level = this.#level(block) ?? this.#createLevel(block);
    const found = find(level, block.words);
    if (found === null) {
      const key = hashOf(level, block.words);
      level.blocks.set(key, { words: block.words, values: [value], next: level.blocks.get(key) ?? null });
    } else if (!found.values.includes(value)) {
      found.values.push(value);
    }
  }

  remove(cidr: string, value: T): void {
    const block = toCidr(cidr);
    const level = this.#level(block);
    if (level === undefined) return;
    const found = find(level, block.words);
    const at = found?.values.indexOf(value) ?? -1;
    if (found === null || at < 0) return;
    found.values.splice(at, 1);
    if (found.values.length > 0) return;
    unlink(level, found);
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
      const found = find(level, address.words);
      if (found !== null) for (const value of found.values) visit(value, level.length);
    }
  }

  #level({ family, length }: Cidr): Level<T> | undefined {
    return this.#levels.find((level) => level.family === family && level.length === length);
  }

  #createLevel({ family, length }: Cidr): Level<T> {
    const mask = (start: number) => maskOf(length - start);
    const level: Level<T> = { family, length, masks: [mask(0), mask(32), mask(64), mask(96)], blocks: new Map() };
    this.#levels.push(level);
    return level;
  }
}

interface Level<T> {
  readonly family: 4 | 6;
  readonly length: number;
  /** One for each word. */
  readonly masks: readonly [number, number, number, number];
  /** By the hash of the masked address; those that share it are chained. */
  readonly blocks: Map<number, Block<T>>;
}

interface Block<T> {
  readonly words: IpWords['words'];
  readonly values: T[];
  next: Block<T> | null;
}

/** The block of the level that holds the address. */
function find<T>(level: Level<T>, words: IpWords['words']): Block<T> | null {
  let block = level.blocks.get(hashOf(level, words)) ?? null;
  while (block !== null && !holds(level, block, words)) block = block.next;
  return block;
}

function holds<T>({ masks }: Level<T>, block: Block<T>, words: IpWords['words']): boolean {
  return (
    ((block.words[0] ^ words[0]) & masks[0]) === 0 &&
    ((block.words[1] ^ words[1]) & masks[1]) === 0 &&
    ((block.words[2] ^ words[2]) & masks[2]) === 0 &&
    ((block.words[3] ^ words[3]) & masks[3]) === 0
  );
}

function unlink<T>(level: Level<T>, block: Block<T>): void {
  const key = hashOf(level, block.words);
  const first = level.blocks.get(key)!;
  if (first !== block) {
    let before = first;
    while (before.next !== block) before = before.next!;
    before.next = block.next;
  } else if (block.next === null) level.blocks.delete(key);
  else level.blocks.set(key, block.next);
}

/** 32 bits, signed: V8 stores such keys in place. */
function hashOf<T>({ masks }: Level<T>, words: IpWords['words']): number {
  let hash = words[0] & masks[0];
  hash = Math.imul(hash, 0x9e3779b1) ^ (words[1] & masks[1]);
  hash = Math.imul(hash, 0x9e3779b1) ^ (words[2] & masks[2]);
  return Math.imul(hash, 0x9e3779b1) ^ (words[3] & masks[3]);
}

/** The leading `bits` of a word; below 1 none, above 31 all. */
function maskOf(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}

function toCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  // Sources check their blocks, so this is a programming error.
  if (cidr === null) throw new TypeError(`not an address block: ${text}`);
  return cidr;
}

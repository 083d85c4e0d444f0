// Hot path of taking in a mesh: `npm run bench -- mesh`, `npm run bench -- scale`.
import { free, resized } from './off-heap.ts';
import type { TextListBuilder } from './text-list.ts';

/**
 * A map from text to text for hundreds of thousands of names, kept as bytes outside of the heap: it costs what the texts
 * are long and 32 bytes (a `Map` of strings takes twice that), and the collector neither looks at it nor moves it.
 *
 * Each entry has a number, which stays the same while the entry is there: columns of other data go by it. The entries
 * come in no particular order. No change takes longer than a small part of the map is large (SHARDS).
 */
export class PackedMap {
  readonly #shards: readonly Shard[];
  /** Of the value among those of a key. */
  readonly #field: number;
  #size = 0;
  /** What was looked for last is often looked for again at once. */
  #lastKey = '';
  #lastId = -1;

  /** @param shards of maps with the same keys (pairOfPackedMaps) */
  constructor(shards: readonly Shard[] = newShards(1), field = 0) {
    this.#shards = shards;
    this.#field = field;
  }

  get size(): number {
    return this.#size;
  }

  /** The number of the entry, 0 and up; -1 when there is none. */
  find(key: string): number {
    if (key === this.#lastKey) return this.#lastId;
    hold(key);
    const shard = heldHash >>> SHARD_SHIFT;
    const local = this.#shards[shard]!.find(heldHash, heldLength, this.#field);
    return this.#remember(key, local < 0 ? -1 : local * SHARDS + shard);
  }

  /** @returns the number of the entry, a new one or that of before */
  set(key: string, value: string): number {
    hold(key);
    const valueLength = value === '' ? 0 : encode(value, heldLength) - heldLength;
    const shard = heldHash >>> SHARD_SHIFT;
    const entries = this.#shards[shard]!;
    const local = entries.set(heldHash, heldLength, valueLength, this.#field);
    if (entries.hasGrown) this.#size++;
    return this.#remember(key, local * SHARDS + shard);
  }

  /** @returns the number that the entry had; -1 when there was none */
  delete(key: string): number {
    hold(key);
    const shard = heldHash >>> SHARD_SHIFT;
    const local = this.#shards[shard]!.delete(heldHash, heldLength, this.#field);
    this.#remember(key, -1);
    if (local < 0) return -1;
    this.#size--;
    return local * SHARDS + shard;
  }

  #remember(key: string, id: number): number {
    this.#lastKey = key;
    this.#lastId = id;
    return id;
  }

  /** @param id of an entry that is there */
  keyAt(id: number): string {
    return this.#shards[id & (SHARDS - 1)]!.keyAt(id >> SHARD_BITS);
  }

  /** @param id of an entry that is there */
  valueAt(id: number): string {
    return this.#shards[id & (SHARDS - 1)]!.valueAt(id >> SHARD_BITS, this.#field);
  }

  /** Appends the key of an entry that is there. */
  appendKey(id: number, to: TextListBuilder): void {
    this.#shards[id & (SHARDS - 1)]!.appendKey(id >> SHARD_BITS, to);
  }

  /** The numbers of all entries. */
  *ids(): IterableIterator<number> {
    for (const [index, shard] of this.#shards.entries())
      for (const local of shard.locals(this.#field)) yield local * SHARDS + index;
  }
}

/**
 * Two maps that have most of their keys in common, which are held once. Entries of the same key have the same number, and
 * come and go each for itself.
 */
export function pairOfPackedMaps(): readonly [PackedMap, PackedMap] {
  const shards = newShards(2);
  return [new PackedMap(shards, 0), new PackedMap(shards, 1)];
}

function newShards(fields: number): readonly Shard[] {
  return Array.from({ length: SHARDS }, () => new Shard(fields));
}

/** The highest bits of a hash choose the shard, the lowest the place in it. */
const SHARD_BITS = 6;
const SHARD_SHIFT = 32 - SHARD_BITS;
const SHARDS = 1 << SHARD_BITS;

/** What is looked for: the key, and the value behind it. */
let scratch = Buffer.allocUnsafeSlow(1024);

/** The key that `scratch` begins with, its bytes there and their hash: what is looked for is often set next. */
let heldKey: string | null = null;
let heldLength = 0;
let heldHash = 0;

function hold(key: string): void {
  if (key === heldKey) return;
  heldLength = encode(key, 0);
  heldHash = hashOf(heldLength);
  heldKey = key;
}

/** Writes a text as UTF-8 into `scratch`; returns where it ends. */
function encode(text: string, at: number): number {
  if (scratch.length < at + text.length * 3) {
    const larger = Buffer.allocUnsafeSlow((at + text.length * 3) * 2);
    scratch.copy(larger, 0, 0, at);
    scratch = larger;
  }
  const end = at + text.length;
  for (let from = 0, to = at; to < end; from++, to++) {
    const code = text.charCodeAt(from);
    if (code > 127) return at + scratch.write(text, at, 'utf8');
    scratch[to] = code;
  }
  return end;
}

/** Differs with each process, so that nobody can choose names that share it. */
const SEED = (Math.random() * 2 ** 32) | 0;

/** 32 bits of the first bytes of `scratch`, after MurmurHash3. */
function hashOf(length: number): number {
  const bytes = scratch;
  let hash = SEED ^ length;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    hash = mix(hash, word);
  }
  if (at < length) {
    let word = 0;
    for (; at < length; at++) word = (word << 8) | bytes[at]!;
    hash = mix(hash, word);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

function mix(hash: number, word: number): number {
  const scrambled = Math.imul(word, 0xcc9e2d51);
  const mixed = hash ^ Math.imul((scrambled << 15) | (scrambled >>> 17), 0x1b873593);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

/** A part of the entries: an index with open addressing, and the texts one behind the other. */
class Shard {
  /** Whether the last `set` made an entry. */
  hasGrown = false;
  /**
   * Local number + 1 and hash of each place, beside each other so that a search stays in one piece of memory; 0 for a free
   * place. A power of two of places, at most 3/4 full.
   */
  #slots = new Int32Array(2 * 8);
  /** Keys in the index. */
  #count = 0;
  /** Numbers for each local number, beside each other because they are read together. */
  readonly #width: number;
  #columns: Int32Array<ArrayBuffer>;
  #next = 0;
  readonly #free: number[] = [];
  #bytes = Buffer.allocUnsafeSlow(0);
  #used = 0;
  /** Bytes among those used that belong to no entry. */
  #dead = 0;

  /** @param fields values that a key can have */
  constructor(fields: number) {
    this.#width = KEY_COLUMNS + fields * VALUE_COLUMNS;
    this.#columns = new Int32Array(8 * this.#width);
  }

  find(hash: number, length: number, field: number): number {
    const local = this.#slots[this.#slotOf(hash, length)]! - 1;
    return local < 0 || this.#columns[this.#valueOf(local, field) + LENGTH] === ABSENT ? -1 : local;
  }

  /** Key and value are in `scratch`. */
  set(hash: number, keyLength: number, valueLength: number, field: number): number {
    const slot = this.#slotOf(hash, keyLength);
    let local = this.#slots[slot]! - 1;
    this.hasGrown = true;
    if (local >= 0) {
      const value = this.#valueOf(local, field);
      const before = this.#columns[value + LENGTH]!;
      if (before !== ABSENT) {
        this.hasGrown = false;
        if (this.#isHeld(this.#columns[value + START]!, before, keyLength, valueLength)) return local;
        this.#dead += before;
        this.#columns[value + LENGTH] = 0;
      }
      this.#makeRoom(valueLength);
    } else {
      this.#makeRoom(keyLength + valueLength);
      local = this.#free.pop() ?? this.#next++;
      if (local * this.#width >= this.#columns.length) this.#growColumns();
      this.#columns.fill(ABSENT, local * this.#width, (local + 1) * this.#width);
      this.#append(local * this.#width, 0, keyLength);
      this.#slots[slot] = local + 1;
      this.#slots[slot + 1] = hash;
      this.#count++;
    }
    this.#append(this.#valueOf(local, field), keyLength, valueLength);
    if (this.#count * 8 > this.#slots.length * 3) this.#growSlots();
    return local;
  }

  delete(hash: number, length: number, field: number): number {
    const slot = this.#slotOf(hash, length);
    const local = this.#slots[slot]! - 1;
    if (local < 0) return -1;
    const value = this.#valueOf(local, field) + LENGTH;
    if (this.#columns[value] === ABSENT) return -1;
    this.#dead += this.#columns[value]!;
    this.#columns[value] = ABSENT;
    if (!this.#hasValue(local)) {
      this.#vacate(slot);
      this.#dead += length;
      this.#columns[local * this.#width + LENGTH] = ABSENT;
      this.#free.push(local);
      this.#count--;
    }
    if (this.#dead > this.#used / 2 && this.#used > SMALL) this.#rebuild(0);
    return local;
  }

  keyAt(local: number): string {
    return this.#textAt(local * this.#width);
  }

  appendKey(local: number, to: TextListBuilder): void {
    const start = this.#columns[local * this.#width + START]!;
    to.append(this.#bytes, start, start + this.#columns[local * this.#width + LENGTH]!);
  }

  valueAt(local: number, field: number): string {
    return this.#textAt(this.#valueOf(local, field));
  }

  *locals(field: number): IterableIterator<number> {
    for (let local = 0; local < this.#next; local++) {
      if (this.#columns[this.#valueOf(local, field) + LENGTH] !== ABSENT) yield local;
    }
  }

  #textAt(column: number): string {
    const length = this.#columns[column + LENGTH]!;
    if (length === 0) return '';
    const start = this.#columns[column + START]!;
    return this.#bytes.toString('utf8', start, start + length);
  }

  /** Where its columns are. */
  #valueOf(local: number, field: number): number {
    return local * this.#width + KEY_COLUMNS + field * VALUE_COLUMNS;
  }

  #hasValue(local: number): boolean {
    const end = (local + 1) * this.#width;
    for (let at = local * this.#width + KEY_COLUMNS; at < end; at += VALUE_COLUMNS) {
      if (this.#columns[at + LENGTH] !== ABSENT) return true;
    }
    return false;
  }

  /** Where the key is in the index, or would be. */
  #slotOf(hash: number, length: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = (hash << 1) & mask;
    for (let held = slots[slot]!; held !== 0; held = slots[slot]!) {
      if (slots[slot + 1] === hash) {
        const column = (held - 1) * this.#width;
        if (this.#isHeld(this.#columns[column + START]!, this.#columns[column + LENGTH]!, 0, length)) return slot;
      }
      slot = (slot + 2) & mask;
    }
    return slot;
  }

  /** Whether the text of `have` bytes at `start` is the one of `length` bytes at `from` in `scratch`. */
  #isHeld(start: number, have: number, from: number, length: number): boolean {
    if (have !== length) return false;
    const bytes = this.#bytes;
    for (let at = 0; at < length; at++) if (bytes[start + at] !== scratch[from + at]) return false;
    return true;
  }

  /** Takes an entry out of the index; those behind it that it was in the way of move up. */
  #vacate(slot: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let gap = slot;
    for (let next = (slot + 2) & mask; slots[next] !== 0; next = (next + 2) & mask) {
      const home = (slots[next + 1]! << 1) & mask;
      if (((next - home) & mask) < ((next - gap) & mask)) continue;
      slots[gap] = slots[next]!;
      slots[gap + 1] = slots[next + 1]!;
      gap = next;
    }
    slots[gap] = 0;
  }

  /** Appends `length` bytes of `scratch` as the text of the columns. */
  #append(column: number, from: number, length: number): void {
    const bytes = this.#bytes;
    const start = this.#used;
    for (let at = 0; at < length; at++) bytes[start + at] = scratch[from + at]!;
    this.#columns[column + START] = start;
    this.#columns[column + LENGTH] = length;
    this.#used = start + length;
  }

  #makeRoom(length: number): void {
    if (this.#used + length > this.#bytes.length) this.#rebuild(length);
  }

  /** Leaves out what is dead, and makes room. */
  #rebuild(more: number): void {
    const size = Math.ceil((this.#used - this.#dead + more) * GROWTH) + SMALL;
    if (this.#dead === 0) {
      this.#bytes = Buffer.from(this.#bytes.buffer.transfer(size));
    } else {
      const bytes = Buffer.allocUnsafeSlow(size);
      let used = 0;
      const columns = this.#columns;
      // What is not there has no length either.
      for (let at = 0; at < this.#next * this.#width; at += VALUE_COLUMNS) {
        const length = columns[at + LENGTH]!;
        if (length <= 0) continue;
        const start = columns[at + START]!;
        columns[at + START] = used;
        used += this.#bytes.copy(bytes, used, start, start + length);
      }
      this.#used = used;
      this.#dead = 0;
      free(this.#bytes);
      this.#bytes = bytes;
    }
  }

  #growColumns(): void {
    this.#columns = resized(this.#columns, Math.ceil(this.#next * GROWTH) * this.#width);
  }

  #growSlots(): void {
    const before = this.#slots;
    const slots = new Int32Array(before.length * 2);
    const mask = slots.length - 1;
    for (let from = 0; from < before.length; from += 2) {
      if (before[from] === 0) continue;
      let slot = (before[from + 1]! << 1) & mask;
      while (slots[slot] !== 0) slot = (slot + 2) & mask;
      slots[slot] = before[from]!;
      slots[slot + 1] = before[from + 1]!;
    }
    this.#slots = slots;
    free(before);
  }
}

/** Of a key, and of each of its values: where it starts among the bytes, and its length. */
const KEY_COLUMNS = 2;
const VALUE_COLUMNS = 2;
const START = 0;
const LENGTH = 1;
/** The length of what is not there. */
const ABSENT = -1;
/** Bytes that are not worth to be saved. */
const SMALL = 256;
const GROWTH = 1.25;

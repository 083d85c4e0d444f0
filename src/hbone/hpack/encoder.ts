// Hot path: once per stream. In a tunnel's second CONNECT, method, authority and baggage are one octet each.
import { CulvertError } from '../../errors.ts';
import { DEFAULT_HEADER_TABLE_SIZE } from '../frames.ts';
import { DynamicTable, fieldSize } from './dynamic-table.ts';
import { huffmanLength, writeHuffman } from './huffman.ts';
import { writeInteger } from './integer.ts';
import { writeLatin1 } from './latin1.ts';
import { type HeaderField, STATIC_TABLE, STATIC_TABLE_LENGTH } from './static-table.ts';

export interface HpackEncoderOptions {
  /** The largest dynamic table to use, whatever the peer allows. */
  readonly maxTableSize: number;
}

/** The sending half of HPACK for one connection (RFC 7541). */
export class HpackEncoder {
  private readonly table: DynamicTable;
  private readonly maxTableSize: number;
  /** The smallest table size since the last block, to be told first (RFC 7541 §4.2). */
  private smallestSize = DEFAULT_HEADER_TABLE_SIZE;
  private sizeChanged = false;

  constructor(options: HpackEncoderOptions) {
    this.table = new DynamicTable(DEFAULT_HEADER_TABLE_SIZE);
    this.maxTableSize = options.maxTableSize;
    this.setMaxTableSize(DEFAULT_HEADER_TABLE_SIZE);
  }

  /** Octets that the dynamic table holds, by the accounting of RFC 7541 §4.1. */
  get tableSize(): number {
    return this.table.size;
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE, to be called when its SETTINGS are acknowledged. */
  setMaxTableSize(size: number): void {
    const used = Math.min(size, this.maxTableSize);
    if (used === this.table.maxSize) return;
    this.table.resize(used);
    this.smallestSize = this.sizeChanged ? Math.min(this.smallestSize, used) : used;
    this.sizeChanged = true;
  }

  /**
   * Encodes a header list as one block at `out[offset]` and returns the octets written. Names and values are latin1
   * strings, names in lower case. Needs `maxEncodedSize(fields)` octets of room. Throws HPACK_NO_ROOM or
   * HPACK_NOT_LATIN1 before anything has changed.
   */
  encode(fields: readonly HeaderField[], out: Uint8Array, offset: number): number {
    if (out.length - offset < maxEncodedSize(fields)) {
      throw new CulvertError('HPACK_NO_ROOM', `header block of up to ${maxEncodedSize(fields)} octets does not fit`);
    }
    for (const field of fields) {
      if (!this.isLatin1(field)) {
        throw new CulvertError('HPACK_NOT_LATIN1', `header ${field[0]} holds characters beyond latin1`);
      }
    }
    let at = this.sizeChanged ? this.writeSizeUpdates(out, offset) : offset;
    for (const field of fields) at = this.writeField(field, out, at);
    return at - offset;
  }

  /** What is in a table has been looked at before. */
  private isLatin1(field: HeaderField): boolean {
    const name = field[0];
    if (!KNOWN_NAMES.has(name) && BEYOND_LATIN1.test(name)) return false;
    return this.table.find(name, field[1]) > 0 || !BEYOND_LATIN1.test(field[1]);
  }

  private writeSizeUpdates(out: Uint8Array, offset: number): number {
    this.sizeChanged = false;
    const at = this.smallestSize < this.table.maxSize ? writeInteger(out, offset, 5, 0x20, this.smallestSize) : offset;
    return writeInteger(out, at, 5, 0x20, this.table.maxSize);
  }

  private writeField(field: HeaderField, out: Uint8Array, offset: number): number {
    const name = field[0];
    const value = field[1];
    const known = KNOWN_NAMES.get(name);
    const staticIndex = known === undefined ? 0 : known.index;
    for (let i = staticIndex; i > 0 && i <= STATIC_TABLE_LENGTH && STATIC_TABLE[i - 1]![0] === name; i++) {
      if (STATIC_TABLE[i - 1]![1] === value) return writeInteger(out, offset, 7, 0x80, i);
    }
    const match = this.table.find(name, value);
    if (match > 0) return writeInteger(out, offset, 7, 0x80, STATIC_TABLE_LENGTH + match);
    const nameIndex = staticIndex > 0 || match === 0 ? staticIndex : STATIC_TABLE_LENGTH - match;
    const indexing = known === undefined ? 'value' : known.indexing;
    if (indexing === 'never') return writeLiteral(out, offset, 4, 0x10, nameIndex, name, value);
    // Huffman code would save a third of these octets and cost both ends more than all the rest of the block.
    if (indexing === 'name' && nameIndex > 0) return writePlain(out, writeInteger(out, offset, 4, 0, nameIndex), value);
    // An entry that would push most others out is worth less than they are.
    if (fieldSize(field) > this.table.maxSize * (3 / 4)) {
      return writeLiteral(out, offset, 4, 0, nameIndex, name, value);
    }
    this.table.add(field);
    return writeLiteral(out, offset, 6, 0x40, nameIndex, name, value);
  }
}

/** An upper bound of the octets that `encode` writes for these fields. */
export function maxEncodedSize(fields: readonly HeaderField[]): number {
  let size = 2 * MAX_INTEGER_OCTETS;
  for (const field of fields) size += field[0].length + field[1].length + 3 * MAX_INTEGER_OCTETS;
  return size;
}

const MAX_INTEGER_OCTETS = 6;
const BEYOND_LATIN1 = /[\u0100-\uffff]/;

function writeLiteral(
  out: Uint8Array,
  offset: number,
  indexBits: number,
  pattern: number,
  nameIndex: number,
  name: string,
  value: string,
): number {
  let at = writeInteger(out, offset, indexBits, pattern, nameIndex);
  if (nameIndex === 0) at = writeString(out, at, name);
  return writeString(out, at, value);
}

/** A string literal, Huffman-coded when that is shorter (RFC 7541 §5.2). */
function writeString(out: Uint8Array, offset: number, text: string): number {
  const coded = huffmanLength(text);
  if (coded >= text.length) return writePlain(out, offset, text);
  return writeHuffman(out, writeInteger(out, offset, 7, 0x80, coded), text);
}

function writePlain(out: Uint8Array, offset: number, text: string): number {
  const at = writeInteger(out, offset, 7, 0, text.length);
  writeLatin1(out, at, text);
  return at + text.length;
}

/**
 * What goes into the dynamic table. `value`: name and value, the default. `name`: the value changes with every stream, so
 * only the first one is entered, for later ones to refer to its name. `never`: a secret, which must not be guessable
 * through compression at any hop (RFC 7541 §7.1.3).
 */
type Indexing = 'value' | 'name' | 'never';

const INDEXING: ReadonlyArray<readonly [name: string, Indexing]> = [
  ['forwarded', 'name'],
  ['traceparent', 'name'],
  ['authorization', 'never'],
  ['proxy-authorization', 'never'],
  ['cookie', 'never'],
  ['set-cookie', 'never'],
];

/** Every name with a place in the static table (`index` is its first, 0 for none) or a rule of its own. */
const KNOWN_NAMES = knownNames();

function knownNames(): ReadonlyMap<string, { index: number; indexing: Indexing }> {
  const names = new Map<string, { index: number; indexing: Indexing }>();
  for (const [i, [name]] of STATIC_TABLE.entries()) {
    if (!names.has(name)) names.set(name, { index: i + 1, indexing: 'value' });
  }
  for (const [name, indexing] of INDEXING) names.set(name, { index: names.get(name)?.index ?? 0, indexing });
  return names;
}

// Hot path: once per stream. Indexed fields hand out the table's own pair, so a repeated block costs a few look-ups.
import { connectionError } from '../http-error.ts';
import { DynamicTable, fieldSize } from './dynamic-table.ts';
import { readHuffman } from './huffman.ts';
import { type Cursor, readInteger } from './integer.ts';
import { readLatin1 } from './latin1.ts';
import { type HeaderField, STATIC_TABLE, STATIC_TABLE_LENGTH } from './static-table.ts';

export interface HpackDecoderOptions {
  /** The table size that both ends start with: 4096 in HTTP/2, whatever SETTINGS will announce. */
  readonly maxTableSize: number;
  /** SETTINGS_MAX_HEADER_LIST_SIZE: octets of names and values and 32 per field (RFC 9113 §6.5.2). */
  readonly maxHeaderListSize: number;
}

/** The receiving half of HPACK for one connection (RFC 7541). */
export class HpackDecoder {
  private readonly table: DynamicTable;
  private readonly maxHeaderListSize: number;
  private maxTableSize: number;
  /** The size that the next block must go down to first (RFC 7541 §4.2), or NO_REDUCTION. */
  private reductionDue = NO_REDUCTION;

  constructor(options: HpackDecoderOptions) {
    this.table = new DynamicTable(options.maxTableSize);
    this.maxTableSize = options.maxTableSize;
    this.maxHeaderListSize = options.maxHeaderListSize;
  }

  /** Octets that the dynamic table holds, by the accounting of RFC 7541 §4.1. */
  get tableSize(): number {
    return this.table.size;
  }

  /**
   * Announced table size, to be called when the peer acknowledges the SETTINGS that carried it. After a reduction the
   * next block must start with a matching size update (RFC 7541 §4.2).
   */
  setMaxTableSize(size: number): void {
    this.maxTableSize = size;
    if (size < this.table.maxSize) this.reductionDue = Math.min(this.reductionDue, size);
  }

  /**
   * Decodes one complete header block, `bytes[offset, offset + length)`, in which the names and values are octets as
   * latin1 characters, not validated as HTTP. The pairs may be shared with the table and with later results.
   *
   * `'list-too-large'` when the list exceeds `maxHeaderListSize`: that request fails, the connection goes on, because the
   * dynamic table has been kept in step. Throws a connection error COMPRESSION_ERROR, after which this decoder is unusable.
   */
  decode(bytes: Uint8Array, offset: number, length: number): HeaderField[] | 'list-too-large' {
    cursor.bytes = bytes;
    cursor.position = offset;
    cursor.end = offset + length;
    this.readSizeUpdates();
    const fields: HeaderField[] = [];
    let listSize = 0;
    while (cursor.position < cursor.end) {
      const field = this.readField();
      listSize += fieldSize(field);
      if (listSize <= this.maxHeaderListSize) fields.push(field);
    }
    return listSize <= this.maxHeaderListSize ? fields : 'list-too-large';
  }

  private readField(): HeaderField {
    const first = cursor.bytes[cursor.position]!;
    if ((first & 0x80) !== 0) return this.fieldAt(readInteger(cursor, 7));
    if ((first & 0x40) !== 0) {
      const field = this.readLiteral(6);
      this.table.add(field);
      return field;
    }
    if ((first & 0x20) !== 0) {
      throw connectionError('COMPRESSION_ERROR', 'table size update behind the start of a header block');
    }
    // Without indexing and never indexed differ only for someone who passes the field on.
    return this.readLiteral(4);
  }

  private readLiteral(indexBits: number): HeaderField {
    const index = readInteger(cursor, indexBits);
    const name = index === 0 ? readString() : this.fieldAt(index)[0];
    return [name, readString()];
  }

  private fieldAt(index: number): HeaderField {
    const field = index <= STATIC_TABLE_LENGTH ? STATIC_TABLE[index - 1] : this.table.get(index - STATIC_TABLE_LENGTH);
    if (field === undefined) throw connectionError('COMPRESSION_ERROR', `no header field with index ${index}`);
    return field;
  }

  private readSizeUpdates(): void {
    for (let updates = 0; cursor.position < cursor.end; updates++) {
      if ((cursor.bytes[cursor.position]! & 0xe0) !== 0x20) break;
      // The smallest size since the last block and the final one: nobody needs a third (RFC 7541 §4.2).
      if (updates === 2) throw connectionError('COMPRESSION_ERROR', 'more than two table size updates in a row');
      const size = readInteger(cursor, 5);
      if (size > Math.min(this.maxTableSize, this.reductionDue)) {
        throw connectionError('COMPRESSION_ERROR', `table size update to ${size} exceeds the announced size`);
      }
      this.reductionDue = NO_REDUCTION;
      this.table.resize(size);
    }
    if (this.reductionDue !== NO_REDUCTION && cursor.position < cursor.end) {
      throw connectionError('COMPRESSION_ERROR', 'header block does not follow the reduced table size');
    }
  }
}

/** A string literal (RFC 7541 §5.2). */
function readString(): string {
  const huffman = cursor.position < cursor.end && (cursor.bytes[cursor.position]! & 0x80) !== 0;
  const length = readInteger(cursor, 7);
  const start = cursor.position;
  const end = start + length;
  if (end > cursor.end) throw connectionError('COMPRESSION_ERROR', 'header block ends inside a string');
  cursor.position = end;
  return huffman ? readHuffman(cursor.bytes, start, end) : readLatin1(cursor.bytes, start, end);
}

const NO_REDUCTION = Number.MAX_SAFE_INTEGER;

/** Decoding is synchronous, so one cursor serves every connection of the thread. */
const cursor: Cursor = { bytes: new Uint8Array(0), position: 0, end: 0 };

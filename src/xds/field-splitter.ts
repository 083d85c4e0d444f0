// Hot path of taking in a mesh: `npm run bench -- xds`, `npm run bench -- scale`.
import { BYTES, FIXED32, FIXED64, VARINT } from './wire.ts';

/**
 * Takes a message apart into its top-level fields while it arrives in pieces. A message of hundreds of megabytes is never
 * in memory as a whole, and none of it is copied but the fields that lie across two pieces.
 *
 *     splitter.add(piece);
 *     while (splitter.next()) … splitter.field, splitter.bytes.subarray(splitter.start, splitter.end) …
 */
export class FieldSplitter {
  /** Number of the field. Like the rest it holds until `next` is called again. */
  field = 0;
  /** The field's content is these bytes from `start` to `end`. */
  bytes: Buffer = NOTHING;
  start = 0;
  end = 0;
  #piece: Buffer = NOTHING;
  #at = 0;
  /** Of a field that has begun in a piece of before. */
  readonly #parts: Buffer[] = [];
  #have = 0;
  /** Bytes without which nothing more can be said of it. */
  #need = 0;
  /** What readVarint has read, exact up to 2^53, and where it ended. */
  #value = 0;
  #after = 0;

  /** Gives the next piece, once `next` has found no more in the one before. */
  add(piece: Buffer): void {
    this.#piece = piece;
    this.#at = 0;
  }

  /**
   * Moves on to the next field that is complete; false when there is none before the next piece. Fields that are not
   * length-delimited are left out.
   * @throws Error when this is no protobuf message
   */
  next(): boolean {
    while (this.#at < this.#piece.length) {
      if (this.#have > 0) {
        const bytes = this.#join();
        if (bytes !== null && this.#read(bytes, 0) > 0 && this.bytes === bytes) return true;
      } else {
        const end = this.#read(this.#piece, this.#at);
        this.#at = end < 0 ? this.#piece.length : end;
        if (end > 0 && this.bytes === this.#piece) return true;
      }
    }
    this.#piece = NOTHING;
    return false;
  }

  /** The message has ended. @throws Error when a field has not */
  finish(): void {
    if (this.#have > 0) throw new Error('cut off');
  }

  /** What is there of the field that has begun, with as much of the piece as it needs; null when that is not all of it. */
  #join(): Buffer | null {
    const end = Math.min(this.#at + this.#need - this.#have, this.#piece.length);
    this.#parts.push(this.#piece.subarray(this.#at, end));
    this.#have += end - this.#at;
    this.#at = end;
    if (this.#have < this.#need) return null;
    const bytes = Buffer.concat(this.#parts, this.#have);
    this.#parts.length = 0;
    this.#have = 0;
    return bytes;
  }

  /** Where the field that starts at `at` ends, and `this.bytes` are its own if it is length-delimited; -1 when it goes on. */
  #read(bytes: Buffer, at: number): number {
    this.bytes = NOTHING;
    if (!this.#readVarint(bytes, at)) return this.#keep(bytes, at, bytes.length - at + 1);
    const wireType = this.#value & 7;
    this.field = Math.floor(this.#value / 8);
    if (this.field === 0) throw new Error('field number 0');
    let end = this.#after;
    if (wireType === BYTES || wireType === VARINT) {
      if (!this.#readVarint(bytes, end)) return this.#keep(bytes, at, bytes.length - at + 1);
      end = this.#after;
      if (wireType === BYTES) end += this.#value;
    } else if (wireType === FIXED64) end += 8;
    else if (wireType === FIXED32) end += 4;
    else throw new Error(`wire type ${wireType}`);
    if (end > bytes.length) return this.#keep(bytes, at, end - at);
    if (wireType === BYTES) {
      this.bytes = bytes;
      this.start = this.#after;
      this.end = end;
    }
    return end;
  }

  #keep(bytes: Buffer, start: number, need: number): -1 {
    this.#parts.push(bytes.subarray(start));
    this.#have = bytes.length - start;
    this.#need = need;
    return -1;
  }

  /** False when it goes on after the last byte. */
  #readVarint(bytes: Buffer, from: number): boolean {
    let value = 0;
    let scale = 1;
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.#value = value;
        this.#after = at + 1;
        return true;
      }
      scale *= 128;
      if (at - from >= 9) throw new Error('a number of more than 10 bytes');
    }
    return false;
  }
}

const NOTHING = Buffer.alloc(0);

/**
 * Many texts by position. A long list is one piece of bytes, which is made, sent to another thread and kept at the price of
 * one text; a short one is plain.
 */
export type TextList = readonly string[] | PackedTexts;

/** Plain data, structured-clonable. */
interface PackedTexts {
  /** UTF-8, one text behind the other. */
  readonly bytes: Uint8Array;
  /** Where each one ends. */
  readonly ends: Uint32Array;
}

export function textCount(list: TextList): number {
  return 'ends' in list ? list.ends.length : list.length;
}

/** @param at 0..textCount-1 */
export function textAt(list: TextList, at: number): string {
  if (!('ends' in list)) return list[at]!;
  return utf8.call(list.bytes, at === 0 ? 0 : list.ends[at - 1]!, list.ends[at]!);
}

const utf8 = Buffer.prototype.utf8Slice;

/** Collects texts from bytes. */
export class TextListBuilder {
  #bytes = Buffer.allocUnsafe(256);
  #used = 0;
  readonly #ends: number[] = [];

  get count(): number {
    return this.#ends.length;
  }

  /** Appends a text that is UTF-8 there. */
  append(bytes: Buffer, start: number, end: number): void {
    const used = this.#used + end - start;
    if (used > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(used * 2);
      this.#bytes.copy(larger, 0, 0, this.#used);
      this.#bytes = larger;
    }
    bytes.copy(this.#bytes, this.#used, start, end);
    this.#used = used;
    this.#ends.push(used);
  }

  list(): TextList {
    const packed = { bytes: this.#bytes, ends: Uint32Array.from(this.#ends) };
    if (this.count <= SHORT) return this.#ends.map((_, at) => textAt(packed, at));
    // Bytes of its own: what is sent is the whole buffer beneath.
    return { bytes: new Uint8Array(this.#bytes.subarray(0, this.#used)), ends: packed.ends };
  }
}

/** Below this a list of texts takes less. */
const SHORT = 32;

import { endOf, type Reader, textUpTo } from './wire.ts';

/**
 * Parts that many resources have in common (a namespace, the ports of a service), found again by the bytes they are read
 * from: they are read once and held once, which halves the garbage of a large push (npm run bench -- xds).
 *
 * What is found is shared, so it must not be changed. What has not come for a while is read anew.
 */
export class Repeated<T> {
  readonly #read: (reader: Reader, end: number) => T;
  /** By the hash of the bytes. When there are many, those of before are dropped, but for what is found again. */
  #recent = new Map<number, Part<T>>();
  #before = new Map<number, Part<T>>();
  /** What came last often comes again at once. */
  #last: Part<T> | null = null;

  /** @param read what the bytes from where the reader is up to `end` mean; throws when they mean nothing */
  constructor(read: (reader: Reader, end: number) => T) {
    this.#read = read;
  }

  /** The part from where the reader is up to `end`, where the reader is then. */
  take(reader: Reader, end: number): T {
    const { buf: bytes, pos: start } = reader;
    if (this.#last !== null && isSame(this.#last.bytes, bytes, start, end)) {
      reader.pos = end;
      return this.#last.value;
    }
    if (end - start > MAX_BYTES) return this.#read(reader, end);
    const hash = hashOf(bytes, start, end);
    let part = this.#recent.get(hash);
    if (part !== undefined && isSame(part.bytes, bytes, start, end)) {
      reader.pos = end;
      this.#last = part;
      return part.value;
    }
    part = this.#before.get(hash);
    if (part !== undefined && isSame(part.bytes, bytes, start, end)) reader.pos = end;
    else part = { value: this.#read(reader, end), bytes: latin1.call(bytes, start, end) };
    if (this.#recent.size >= MAX_RECENT) {
      this.#before = this.#recent;
      this.#recent = new Map();
    }
    this.#recent.set(hash, part);
    this.#last = part;
    return part.value;
  }
}

/** A text that many resources have. @throws Error for what is no UTF-8 */
export function readRepeatedText(reader: Reader, wireType: number): string {
  return TEXTS.take(reader, endOf(reader, wireType));
}

/** The same from where the reader is up to `end`. */
export function repeatedTextUpTo(reader: Reader, end: number): string {
  return TEXTS.take(reader, end);
}

interface Part<T> {
  readonly bytes: string;
  readonly value: T;
}

/** After FNV-1a, but of four bytes at a time. Of two texts that share it only the later is known. */
function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  let at = start;
  for (; at + 4 <= end; at += 4) {
    const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    hash = Math.imul(hash ^ word, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  for (; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
  return hash;
}

function isSame(known: string, bytes: Uint8Array, start: number, end: number): boolean {
  if (known.length !== end - start) return false;
  for (let at = 0; at < known.length; at++) if (known.charCodeAt(at) !== bytes[start + at]) return false;
  return true;
}

const latin1 = Buffer.prototype.latin1Slice;
const TEXTS = new Repeated(textUpTo);

/** A mesh of 200 000 workloads has some 10 000 services. */
const MAX_RECENT = 16_384;
/** What is longer is rare, and a few of them would hold much. */
const MAX_BYTES = 256;

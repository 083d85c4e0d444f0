// Hot path of taking in a mesh: `npm run bench -- xds`, `npm run bench -- scale`.
import type { WorkloadUpdate } from '../state/mesh-state.ts';
import { free } from '../state/off-heap.ts';
import { BYTES, tag, VARINT } from './wire.ts';

/**
 * Tells in a workload's bytes what it has for itself (its name, its addresses …) from the rest, which the pods of one
 * deployment in one zone have in common. The positions hold until the next workload is taken apart.
 */
export class WorkloadParts {
  nameStart = 0;
  nameEnd = 0;
  nodeStart = 0;
  nodeEnd = 0;
  uidStart = 0;
  uidEnd = 0;
  /** Number of the health; -1 when it is not said. */
  status = -1;
  addressCount = 0;
  /** Start and end of each. */
  readonly addresses = new Int32Array(2 * MAX_ADDRESSES);
  /** All that is not the workload's own, and zeros up to the next whole word. */
  readonly rest = new Int32Array(MAX_BYTES / 4);
  /** Bytes of it. */
  restLength = 0;
  readonly #restBytes = new Uint8Array(this.rest.buffer);

  /**
   * Takes the message from `start` to `end` apart; false when it is malformed or unusual (what is its own comes twice, say)
   * and has to be read field by field. Whether values are valid is left to who reads them.
   */
  split(bytes: Uint8Array, start: number, end: number): boolean {
    if (end - start > MAX_BYTES) return false;
    const rest = this.#restBytes;
    let restLength = 0;
    this.nameStart = this.nameEnd = this.nodeStart = this.nodeEnd = this.uidStart = this.uidEnd = 0;
    this.status = -1;
    this.addressCount = 0;
    for (let at = start; at < end; ) {
      let from = at;
      let key = bytes[at++]!;
      if (key >= 0x80) {
        if (at >= end || bytes[at]! >= 0x80) return false;
        key = (key & 0x7f) | (bytes[at++]! << 7);
      }
      let value = at;
      if ((key & 7) === BYTES) {
        if (at >= end) return false;
        let length = bytes[at++]!;
        if (length >= 0x80) {
          if (at >= end || bytes[at]! >= 0x80) return false;
          length = (length & 0x7f) | (bytes[at++]! << 7);
        }
        value = at;
        at += length;
      } else if ((key & 7) === VARINT) {
        while (at < end && bytes[at]! >= 0x80) at++;
        at++;
        // What is longer is no number of 32 bits.
        if (at - value > 5) return false;
      } else {
        return false;
      }
      if (at > end) return false;
      switch (key) {
        case NAME:
          if (this.nameEnd > 0) return false;
          this.nameStart = value;
          this.nameEnd = at;
          break;
        case ADDRESS:
          if (this.addressCount === MAX_ADDRESSES) return false;
          this.addresses[2 * this.addressCount] = value;
          this.addresses[2 * this.addressCount++ + 1] = at;
          break;
        case NODE:
          if (this.nodeEnd > 0) return false;
          this.nodeStart = value;
          this.nodeEnd = at;
          break;
        case STATUS:
          if (at - value > 1 || this.status >= 0) return false;
          this.status = bytes[value]!;
          break;
        case UID:
          if (this.uidEnd > 0) return false;
          this.uidStart = value;
          this.uidEnd = at;
          break;
        default:
          while (from < at) rest[restLength++] = bytes[from++]!;
      }
    }
    this.restLength = restLength;
    while (restLength % 4 !== 0) rest[restLength++] = 0;
    return true;
  }

  get hasOneIpv4(): boolean {
    return this.addressCount === 1 && this.addresses[1]! - this.addresses[0]! === 4;
  }

  /** The first address, when it is one of IPv4, as a signed number. */
  ipv4(bytes: Uint8Array): number {
    const at = this.addresses[0]!;
    return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
  }

  /** Whether the name is what nameInUid finds in the uid. */
  isNameInUid(bytes: Uint8Array): boolean {
    const { nameStart, nameEnd, uidStart, uidEnd } = this;
    const start = uidEnd - (nameEnd - nameStart);
    if (start <= uidStart || bytes[start - 1] !== SLASH) return false;
    for (let from = nameStart, to = start; from < nameEnd; from++, to++) {
      if (bytes[from] !== bytes[to] || bytes[from] === SLASH) return false;
    }
    return true;
  }
}

/**
 * Workloads by the rest of their bytes: what is read of one holds for all that have the same rest. The bytes are kept
 * outside of the heap, in pieces so that it never takes long to make room.
 */
export class AlikeWorkloads {
  readonly #byHash = new Map<number, Known>();
  readonly #pieces: Int32Array<ArrayBuffer>[] = [];
  /** Words of the last piece. */
  #used = 0;
  readonly #hash: typeof hashOf;

  /** @param hash of some bytes, given as words; of two that share it only the later is known */
  constructor(hash = hashOf) {
    this.#hash = hash;
  }

  find({ rest, restLength }: WorkloadParts): WorkloadUpdate | undefined {
    const known = this.#byHash.get(this.#hash(rest, restLength));
    if (known === undefined || known.length !== restLength) return undefined;
    const { piece } = known;
    for (let at = 0, from = known.start; at * 4 < restLength; at++, from++) {
      if (piece[from] !== rest[at]) return undefined;
    }
    return known.update;
  }

  /** @param update what the workload of these parts is */
  add({ rest, restLength }: WorkloadParts, update: WorkloadUpdate): void {
    if (this.#byHash.size >= MAX_KNOWN) this.clear();
    const count = Math.ceil(restLength / 4);
    let piece = this.#pieces.at(-1);
    if (piece === undefined || this.#used + count > PIECE_WORDS) {
      if (this.#pieces.length >= MAX_PIECES) this.clear();
      piece = new Int32Array(PIECE_WORDS);
      this.#pieces.push(piece);
      this.#used = 0;
    }
    const start = this.#used;
    piece.set(rest.subarray(0, count), start);
    this.#used += count;
    this.#byHash.set(this.#hash(rest, restLength), { piece, start, length: restLength, update });
  }

  clear(): void {
    this.#byHash.clear();
    for (const piece of this.#pieces) free(piece);
    this.#pieces.length = 0;
  }
}

interface Known {
  readonly piece: Int32Array<ArrayBuffer>;
  /** Position of the rest among the words. */
  readonly start: number;
  /** In bytes. */
  readonly length: number;
  readonly update: WorkloadUpdate;
}

/** Differs with each process: what shares a hash in one does not have to in another. */
const SEED = (Math.random() * 2 ** 32) | 0;

/** Of some bytes, given as words. Whoever makes two of one hash all the same has them read field by field. */
function hashOf(words: Int32Array, length: number): number {
  let hash = SEED ^ length;
  for (let at = 0; at * 4 < length; at++) {
    hash = Math.imul(hash ^ words[at]!, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}

const NAME = tag(1, BYTES);
const ADDRESS = tag(3, BYTES);
const NODE = tag(9, BYTES);
const STATUS = tag(17, VARINT);
const UID = tag(20, BYTES);

const SLASH = 0x2f;

/** Nearly all have one, or one of each family. */
const MAX_ADDRESSES = 4;
/** Workloads take some 400 bytes; what is longer is rare. */
const MAX_BYTES = 4096;
/** Enough for 10 000 services in three zones. */
const MAX_KNOWN = 32_768;
/** 256 KB; several of the longest. */
const PIECE_WORDS = 65_536;
/** 16 MB */
const MAX_PIECES = 64;

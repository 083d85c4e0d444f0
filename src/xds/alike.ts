// Hot path of taking in a mesh: `npm run bench -- xds`, `npm run bench -- scale`.
import type { WorkloadUpdate } from '../state/mesh-state.ts';
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
  readonly #rest = Buffer.allocUnsafeSlow(MAX_BYTES);
  #restLength = 0;

  /**
   * Takes the message from `start` to `end` apart; false when it is malformed or unusual (what is its own comes twice, say)
   * and has to be read field by field. Whether values are valid is left to who reads them.
   */
  split(bytes: Uint8Array, start: number, end: number): boolean {
    if (end - start > MAX_BYTES) return false;
    const rest = this.#rest;
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
    this.#restLength = restLength;
    return true;
  }

  /** All that is not the workload's own, a character for each byte. */
  rest(): string {
    return latin1.call(this.#rest, 0, this.#restLength);
  }
}

/** Workloads by the rest of their bytes: what is read of one holds for all that have the same rest. */
export class AlikeWorkloads {
  readonly #byRest = new Map<string, WorkloadUpdate>();
  #bytes = 0;

  find(rest: string): WorkloadUpdate | undefined {
    return this.#byRest.get(rest);
  }

  add(rest: string, update: WorkloadUpdate): void {
    if (this.#bytes > MAX_HELD) this.clear();
    this.#byRest.set(rest, update);
    this.#bytes += rest.length + OVERHEAD;
  }

  clear(): void {
    this.#byRest.clear();
    this.#bytes = 0;
  }
}

const NAME = tag(1, BYTES);
const ADDRESS = tag(3, BYTES);
const NODE = tag(9, BYTES);
const STATUS = tag(17, VARINT);
const UID = tag(20, BYTES);

/** Nearly all have one, or one of each family. */
const MAX_ADDRESSES = 4;
/** Workloads take some 400 bytes; what is longer is rare. */
const MAX_BYTES = 4096;
/** What is held may take so many bytes: enough for 30 000 pairs of a deployment and a zone. */
const MAX_HELD = 24 * 1024 * 1024;
/** Bytes that one takes besides its rest, about. */
const OVERHEAD = 400;
const latin1 = Buffer.prototype.latin1Slice;

import { CulvertError } from '../../errors.ts';
import { PREFIX_LENGTH } from './service.ts';

/** Finds the messages in the bytes of a call, each whole and not longer than allowed. */
export class MessageReader {
  readonly #max: number;
  #parts: Buffer[] = [];
  #have = 0;
  /** Bytes without which nothing can be read: of the prefix, then of prefix and message. */
  #need = PREFIX_LENGTH;

  constructor(max: number) {
    this.#max = max;
  }

  /** Whether no message is cut off if the call ends here. */
  get isBetween(): boolean {
    return this.#have === 0;
  }

  /** @throws CulvertError RESOURCE_EXHAUSTED or UNIMPLEMENTED, which are statuses of gRPC */
  *push(bytes: Buffer): Generator<Buffer> {
    this.#parts.push(bytes);
    this.#have += bytes.length;
    while (this.#have >= this.#need) {
      const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#have);
      this.#parts = [all];
      const length = all.readUInt32BE(1);
      if (all[0] !== 0) throw new CulvertError('UNIMPLEMENTED', 'messages are not accepted compressed');
      if (length > this.#max) {
        throw new CulvertError(
          'RESOURCE_EXHAUSTED',
          `received message larger than max (${length} vs. ${this.#max} bytes)`,
        );
      }
      this.#need = PREFIX_LENGTH + length;
      if (this.#have < this.#need) return;
      const message = all.subarray(PREFIX_LENGTH, this.#need);
      const rest = all.subarray(this.#need);
      this.#parts = rest.length === 0 ? [] : [rest];
      this.#have = rest.length;
      this.#need = PREFIX_LENGTH;
      yield message;
    }
  }
}

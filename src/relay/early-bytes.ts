/** Bytes of a stream that came before its relay did: in one piece, however small the frames were that brought them. */
export class EarlyBytes {
  #buffer = EMPTY;
  #length = 0;

  append(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#buffer.length));
      larger.set(this.bytes);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }

  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }
}

const EMPTY = new Uint8Array(0);

import type { HeaderField } from '../../../../src/hbone/hpack.ts';
import { errorCodeName } from '../../../../src/hbone/http-error.ts';
import type { Http2Stream, StreamHandler, StreamReset } from '../../../../src/hbone/stream.ts';

/** A handler that takes what comes and keeps it. */
export class Recorder implements StreamHandler {
  /** Status and headers of the response. */
  readonly responses: { readonly status: number; readonly headers: readonly HeaderField[] }[] = [];
  readonly chunks: Buffer[] = [];
  /** Bytes of data so far. */
  length = 0;
  ended = false;
  reset: StreamReset | null = null;
  /** How often it was told that it can send again. */
  writable = 0;
  /** Set by who has the stream; data is credited at once when `reads`. */
  stream: Http2Stream | null = null;
  reads = true;
  onWritable: () => void = () => {};
  readonly #memory: Uint8Array;

  constructor(memory: Uint8Array) {
    this.#memory = memory;
  }

  get data(): Buffer {
    return Buffer.concat(this.chunks);
  }

  /** One word for how it ended. */
  get outcome(): string {
    if (this.reset !== null) return errorCodeName(this.reset.code);
    return this.ended ? 'end' : 'open';
  }

  status(): number | undefined {
    return this.responses.at(-1)?.status;
  }

  streamResponse(status: number, headers: readonly HeaderField[]): void {
    this.responses.push({ status, headers });
  }

  streamData(offset: number, length: number): void {
    this.chunks.push(Buffer.from(this.#memory.subarray(offset, offset + length)));
    this.length += length;
    if (this.reads) this.stream?.credit(length);
  }

  streamEnded(): void {
    this.ended = true;
  }

  streamReset(reset: StreamReset): void {
    this.reset = reset;
  }

  streamWritable(): void {
    this.writable++;
    this.onWritable();
  }
}

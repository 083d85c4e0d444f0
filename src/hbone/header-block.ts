import { FrameFlag } from './frames.ts';
import { connectionError } from './http-error.ts';

/** Header blocks beyond this are not even collected: CONTINUATION floods end here (in octets on the wire). */
export const MAX_HEADER_BLOCK = 128 * 1024;

/** Frames that a header block may come in. One of the largest size fits into 8 of the smallest. */
const MAX_FRAMES = 64;

/** Puts together what HEADERS and CONTINUATION frames carry (RFC 9113 §4.3, §6.2, §6.10). */
export class HeaderBlockCollector {
  streamId = 0;
  endStream = false;
  isComplete = false;
  /** The block, once it is complete; valid as long as the last frame's bytes are. */
  bytes: Uint8Array = EMPTY;
  offset = 0;
  length = 0;
  #fragments: Uint8Array[] | null = null;
  #collected = 0;

  /** HEADERS came without END_HEADERS: only CONTINUATION of its stream may follow. */
  get isOpen(): boolean {
    return this.#fragments !== null;
  }

  start(streamId: number, flags: number, bytes: Uint8Array, start: number, length: number): void {
    if (streamId === 0) throw connectionError('PROTOCOL_ERROR', 'HEADERS on stream 0');
    let at = start;
    let end = start + length;
    if ((flags & FrameFlag.PADDED) !== 0) {
      if (length < 1) throw connectionError('FRAME_SIZE_ERROR', 'padded HEADERS without a pad length');
      end -= bytes[at]!;
      at++;
    }
    if (at > end) throw connectionError('PROTOCOL_ERROR', 'more padding than HEADERS');
    if ((flags & FrameFlag.PRIORITY) !== 0) {
      // RFC 9113 §6.2; ignored since §5.3.2.
      at += 5;
      if (at > end) throw connectionError('FRAME_SIZE_ERROR', 'HEADERS too short for its priority fields');
    }
    this.streamId = streamId;
    this.endStream = (flags & FrameFlag.END_STREAM) !== 0;
    if ((flags & FrameFlag.END_HEADERS) !== 0) {
      this.#complete(bytes, at, end - at);
      return;
    }
    this.#fragments = [bytes.slice(at, end)];
    this.#collected = end - at;
  }

  continue(flags: number, bytes: Uint8Array, at: number, length: number): void {
    const fragments = this.#fragments;
    if (fragments === null) throw connectionError('PROTOCOL_ERROR', 'CONTINUATION without HEADERS');
    fragments.push(bytes.slice(at, at + length));
    this.#collected += length;
    if (this.#collected > MAX_HEADER_BLOCK || fragments.length > MAX_FRAMES) {
      throw connectionError(
        'ENHANCE_YOUR_CALM',
        `header block of ${fragments.length} frames and ${this.#collected} octets`,
        'continuation-flood',
      );
    }
    if ((flags & FrameFlag.END_HEADERS) === 0) return;
    const block = Buffer.concat(fragments);
    this.#complete(block, 0, block.length);
  }

  clear(): void {
    this.isComplete = false;
    this.bytes = EMPTY;
    this.#fragments = null;
  }

  #complete(bytes: Uint8Array, offset: number, length: number): void {
    this.isComplete = true;
    this.bytes = bytes;
    this.offset = offset;
    this.length = length;
  }
}

const EMPTY = new Uint8Array(0);

// Hot path (bench/: relay, pods): frames are parsed where they were read; nothing is allocated for one that lies in one
// piece, and payload of DATA is handed on as offset and length however it comes.
import {
  CLIENT_PREFACE,
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
} from './frames.ts';
import { HeaderBlockCollector, MAX_HEADER_BLOCK } from './header-block.ts';
import { connectionError } from './http-error.ts';

/** Who acts on what was read. Whatever is thrown leaves the reader unusable. */
export interface FrameSink {
  /** A DATA frame begins; `length` octets of it count against the windows (padding included). */
  dataStarts(streamId: number, flags: number, length: number): void;
  /** How much of the current DATA frame is padding, its length octet included. */
  dataPadding(length: number, isAll: boolean): void;
  /** Payload of the current DATA frame, as much as is there. */
  data(offset: number, length: number): void;
  dataEnds(endStream: boolean): void;
  /** A header block: HEADERS and its CONTINUATION frames, without padding and priority. */
  headerBlock(streamId: number, endStream: boolean, bytes: Uint8Array, offset: number, length: number): void;
  /** Any other frame, whole. */
  frame(type: number, flags: number, streamId: number, bytes: Uint8Array, offset: number, length: number): void;
}

/** Everything but DATA and header blocks is collected whole: larger ones have no use. */
const MAX_CONTROL_FRAME = 65_536;

// Where the bytes of a frame are that did not come in one piece.
type Partial =
  | { readonly kind: 'header'; readonly bytes: Uint8Array; filled: number }
  | { readonly kind: 'payload'; readonly bytes: Uint8Array; filled: number };

/** Bytes into frames: the client's preface, frames in any number of pieces, header blocks in any number of frames. */
export class FrameReader {
  readonly #memory: Uint8Array;
  readonly #maxFrameSize: number;
  readonly #sink: FrameSink;
  readonly #block = new HeaderBlockCollector();
  #prefaceLeft: number;
  #isFirst = true;
  #stopped = false;
  #partial: Partial | null = null;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  #inData = false;
  #dataLeft = 0;
  /** Octets of padding in the current DATA frame, UNREAD until the first octet has told. */
  #paddingLeft = 0;

  /** `maxFrameSize`: SETTINGS_MAX_FRAME_SIZE as announced. `expectPreface`: the peer is a client (RFC 9113 §3.4). */
  constructor(memory: Uint8Array, maxFrameSize: number, expectPreface: boolean, sink: FrameSink) {
    this.#memory = memory;
    this.#maxFrameSize = maxFrameSize;
    this.#sink = sink;
    this.#prefaceLeft = expectPreface ? CLIENT_PREFACE.length : 0;
  }

  /** Reads `memory[start, end)`. Throws connection errors, and what the sink throws. */
  read(start: number, end: number): void {
    let at = start;
    if (this.#prefaceLeft > 0) at = this.#preface(at, end);
    const memory = this.#memory;
    while (at < end && !this.#stopped) {
      if (this.#inData) {
        at = this.#data(at, end);
      } else if (this.#partial !== null) {
        at = this.#fillPartial(this.#partial, at, end);
      } else if (end - at < FRAME_HEADER_SIZE) {
        this.#partial = partial('header', FRAME_HEADER_SIZE, memory, at, end);
        return;
      } else {
        const length = this.#frameHeader(memory, at);
        at += FRAME_HEADER_SIZE;
        if (this.#type === FrameType.DATA) {
          at = this.#startData(length, at, end);
        } else if (end - at >= length) {
          this.#frame(memory, at, length);
          at += length;
        } else {
          this.#partial = partial('payload', length, memory, at, end);
          return;
        }
      }
    }
  }

  /** Reads nothing more, from within the sink too, and lets go of what was collected. */
  stop(): void {
    this.#stopped = true;
    this.#partial = null;
    this.#block.clear();
  }

  #preface(start: number, end: number): number {
    let at = start;
    while (this.#prefaceLeft > 0 && at < end) {
      if (this.#memory[at] !== CLIENT_PREFACE[CLIENT_PREFACE.length - this.#prefaceLeft]) {
        throw connectionError('PROTOCOL_ERROR', 'the peer does not speak HTTP/2 (no connection preface)');
      }
      at++;
      this.#prefaceLeft--;
    }
    return at;
  }

  /** Completes a frame header or a payload that came in pieces. Returns where reading goes on. */
  #fillPartial(partial: Partial, at: number, end: number): number {
    const part = Math.min(end - at, partial.bytes.length - partial.filled);
    partial.bytes.set(this.#memory.subarray(at, at + part), partial.filled);
    partial.filled += part;
    const next = at + part;
    if (partial.filled < partial.bytes.length) return next;
    this.#partial = null;
    if (partial.kind === 'payload') {
      this.#frame(partial.bytes, 0, partial.bytes.length);
      return next;
    }
    const length = this.#frameHeader(partial.bytes, 0);
    if (this.#type === FrameType.DATA) return this.#startData(length, next, end);
    if (length === 0) this.#frame(partial.bytes, FRAME_HEADER_SIZE, 0);
    else this.#partial = { kind: 'payload', bytes: new Uint8Array(length), filled: 0 };
    return next;
  }

  /** Reads a frame header and checks what the order of frames and their sizes say. Returns the payload's length. */
  #frameHeader(bytes: Uint8Array, at: number): number {
    const length = frameLength(bytes, at);
    const type = frameType(bytes, at);
    this.#type = type;
    this.#flags = frameFlags(bytes, at);
    this.#streamId = frameStreamId(bytes, at);
    if (length > this.#maxFrameSize) throw connectionError('FRAME_SIZE_ERROR', `frame of ${length} octets`);
    if (this.#isFirst) {
      // RFC 9113 §3.4
      if (type !== FrameType.SETTINGS || (this.#flags & FrameFlag.ACK) !== 0) {
        throw connectionError('PROTOCOL_ERROR', 'the first frame is not SETTINGS');
      }
      this.#isFirst = false;
    }
    if (this.#block.isOpen && (type !== FrameType.CONTINUATION || this.#streamId !== this.#block.streamId)) {
      throw connectionError('PROTOCOL_ERROR', 'a header block is interrupted by another frame');
    }
    if (type === FrameType.HEADERS || type === FrameType.CONTINUATION) {
      if (length > MAX_HEADER_BLOCK) {
        throw connectionError('ENHANCE_YOUR_CALM', `header block fragment of ${length} octets`, 'continuation-flood');
      }
    } else if (type !== FrameType.DATA && length > MAX_CONTROL_FRAME) {
      throw connectionError('ENHANCE_YOUR_CALM', `control frame of ${length} octets`, 'useless-frames');
    }
    return length;
  }

  #startData(length: number, at: number, end: number): number {
    if (this.#streamId === 0) throw connectionError('PROTOCOL_ERROR', 'DATA on stream 0');
    this.#sink.dataStarts(this.#streamId, this.#flags, length);
    const isPadded = (this.#flags & FrameFlag.PADDED) !== 0;
    if (isPadded && length === 0) throw connectionError('FRAME_SIZE_ERROR', 'padded DATA without a pad length');
    this.#dataLeft = length;
    this.#paddingLeft = isPadded ? UNREAD : 0;
    this.#inData = true;
    // An empty frame has no bytes to come back for.
    return length === 0 ? this.#data(at, end) : at;
  }

  /** Hands on as much of the current DATA frame as is there. */
  #data(start: number, end: number): number {
    let at = start;
    if (this.#paddingLeft === UNREAD) {
      this.#paddingLeft = this.#memory[at]!;
      at++;
      this.#dataLeft--;
      if (this.#paddingLeft > this.#dataLeft) throw connectionError('PROTOCOL_ERROR', 'more padding than DATA');
      this.#sink.dataPadding(1 + this.#paddingLeft, this.#paddingLeft === this.#dataLeft);
    }
    const payload = Math.min(this.#dataLeft - this.#paddingLeft, end - at);
    if (payload > 0) {
      this.#sink.data(at, payload);
      at += payload;
      this.#dataLeft -= payload;
    }
    if (this.#dataLeft === this.#paddingLeft) {
      const padding = Math.min(this.#paddingLeft, end - at);
      at += padding;
      this.#dataLeft -= padding;
      this.#paddingLeft -= padding;
      if (this.#dataLeft === 0) {
        this.#inData = false;
        this.#sink.dataEnds((this.#flags & FrameFlag.END_STREAM) !== 0);
      }
    }
    return at;
  }

  #frame(bytes: Uint8Array, at: number, length: number): void {
    if (this.#type !== FrameType.HEADERS && this.#type !== FrameType.CONTINUATION) {
      this.#sink.frame(this.#type, this.#flags, this.#streamId, bytes, at, length);
      return;
    }
    const block = this.#block;
    if (this.#type === FrameType.HEADERS) block.start(this.#streamId, this.#flags, bytes, at, length);
    else block.continue(this.#flags, bytes, at, length);
    if (!block.isComplete) return;
    const { bytes: whole, offset, length: size, endStream } = block;
    block.clear();
    this.#sink.headerBlock(this.#streamId, endStream, whole, offset, size);
  }
}

const UNREAD = -1;

function partial(kind: Partial['kind'], size: number, memory: Uint8Array, start: number, end: number): Partial {
  const bytes = new Uint8Array(size);
  bytes.set(memory.subarray(start, end));
  return { kind, bytes, filled: end - start };
}

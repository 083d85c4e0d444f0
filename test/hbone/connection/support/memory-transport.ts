import type { Http2Connection, Http2Transport } from '../../../../src/hbone/connection.ts';
import { FRAME_HEADER_SIZE, FrameType, writeFrameHeader } from '../../../../src/hbone/frames.ts';

const SCRATCH = 64 * 1024;
const HEADROOM = 64;
const SLAB = 256 * 1024;

/** A transport laid out as the addon's, in memory. What is written waits in a queue until somebody takes it. */
export class MemoryTransport implements Http2Transport {
  readonly memory: Uint8Array;
  readonly scratchSize = SCRATCH;
  /** Bytes that go out without anybody taking them, as into the kernel's buffers. */
  room = Number.POSITIVE_INFINITY;
  closed = false;
  connection: Http2Connection | null = null;
  #queue: Buffer[] = [];
  #sent: Buffer[] = [];
  /** Bytes in the queue. */
  queued = 0;

  /** `memory` of a loop when its channels are to carry what streams bring. */
  constructor(memory: Uint8Array = new Uint8Array(SCRATCH + HEADROOM + SLAB)) {
    this.memory = memory;
  }

  write(offset: number, length: number): number {
    if (this.closed) return -1;
    this.#queue.push(Buffer.from(this.memory.subarray(offset, offset + length)));
    this.queued += length;
    return this.queued;
  }

  writeData(streamId: number, flags: number, offset: number, length: number): number {
    const at = offset - FRAME_HEADER_SIZE;
    writeFrameHeader(this.memory, at, length, FrameType.DATA, flags, streamId);
    return this.write(at, FRAME_HEADER_SIZE + length);
  }

  flush(): number {
    while (this.#queue.length > 0 && this.room > 0) {
      const first = this.#queue[0]!;
      const part = first.subarray(0, this.room);
      this.#sent.push(part);
      this.room -= part.length;
      this.queued -= part.length;
      if (part.length === first.length) this.#queue.shift();
      else this.#queue[0] = first.subarray(part.length);
    }
    return this.queued;
  }

  close(): void {
    this.flush();
    this.closed = true;
  }

  /** The kernel takes `bytes` more, as it does when the peer has read. */
  makeRoom(bytes: number): void {
    this.room += bytes;
    this.connection?.drained(this.flush());
  }

  /** What has gone out since the last call. */
  take(): Buffer {
    this.flush();
    const bytes = Buffer.concat(this.#sent);
    this.#sent = [];
    return bytes;
  }

  /** Has the connection read bytes, as many at a time as a read brings. */
  deliver(bytes: Uint8Array, most = SLAB): void {
    const start = SCRATCH + HEADROOM;
    for (let at = 0; at < bytes.length && !this.closed; at += most) {
      const part = bytes.subarray(at, at + most);
      this.memory.set(part, start);
      this.connection?.receive(start, part.length);
    }
  }
}

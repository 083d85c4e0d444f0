// Hot path (bench/: relay, pods): every frame is built at the start of the thread's memory, or in front of its payload.
import {
  CLIENT_PREFACE,
  FRAME_HEADER_SIZE,
  FrameFlag,
  headersSize,
  SettingId,
  writeGoAway,
  writeHeaders,
  writePing,
  writeRstStream,
  writeSettings,
  writeSettingsAck,
  writeWindowUpdate,
} from './frames.ts';
import { type HeaderField, HpackEncoder, maxEncodedSize } from './hpack.ts';
import { connectionError } from './http-error.ts';
import type { Http2Transport } from './http2.ts';
import { PING_PAYLOADS, type PingPurpose } from './ping.ts';
import type { Settings } from './settings.ts';

/** Bytes that may wait altogether. Only a peer that makes us answer and does not read the answers gets there. */
const MAX_QUEUED = 2 * 1024 * 1024;

/** Frames into the transport. */
export class FrameSender {
  readonly #transport: Http2Transport;
  readonly #memory: Uint8Array;
  readonly #peer: Settings;
  readonly #encoder: HpackEncoder;
  readonly #overflowed: () => void;

  /** `peer`: what the peer has announced, kept up to date. `overflowed`: the peer does not read what it is sent. */
  constructor(transport: Http2Transport, peer: Settings, overflowed: () => void) {
    this.#transport = transport;
    this.#memory = transport.memory;
    this.#peer = peer;
    this.#encoder = new HpackEncoder({ maxTableSize: peer.headerTableSize });
    this.#overflowed = overflowed;
  }

  /** What a side says first (RFC 9113 §3.4): `windowIncrement` is for the connection, 0 for none. */
  preface(
    isClient: boolean,
    settings: ReadonlyArray<readonly [id: SettingId, value: number]>,
    windowIncrement: number,
  ): void {
    const memory = this.#memory;
    let length = 0;
    if (isClient) {
      memory.set(CLIENT_PREFACE, 0);
      length = CLIENT_PREFACE.length;
    }
    length += writeSettings(memory, length, settings);
    if (windowIncrement > 0) length += writeWindowUpdate(memory, length, 0, windowIncrement);
    this.#write(length);
  }

  settingsAck(): void {
    this.#write(writeSettingsAck(this.#memory, 0));
  }

  /** The peer's HEADER_TABLE_SIZE, once its SETTINGS are acknowledged. */
  setHeaderTableSize(size: number): void {
    this.#encoder.setMaxTableSize(size);
  }

  /** SETTINGS that change the window of every stream. */
  initialWindow(size: number): void {
    this.#write(writeSettings(this.#memory, 0, [[SettingId.INITIAL_WINDOW_SIZE, size]]));
  }

  ping(purpose: PingPurpose): void {
    this.#write(writePing(this.#memory, 0, false, PING_PAYLOADS[purpose]!, 0));
  }

  pingAck(opaque: Uint8Array, opaqueOffset: number): void {
    this.#write(writePing(this.#memory, 0, true, opaque, opaqueOffset));
  }

  /** `streamId` 0 is the connection. */
  windowUpdate(streamId: number, increment: number): void {
    this.#write(writeWindowUpdate(this.#memory, 0, streamId, increment));
  }

  reset(streamId: number, code: number): void {
    this.#write(writeRstStream(this.#memory, 0, streamId, code));
  }

  /** The last frame of a connection perhaps: nothing is done about what waits in front of it. */
  goAway(lastStreamId: number, code: number, debug: string): void {
    const text = debug.replace(/[^ -~]/g, '?').slice(0, 200);
    this.#transport.write(0, writeGoAway(this.#memory, 0, lastStreamId, code, text));
  }

  /** Encodes a header list for `headers`. Returns its length. Throws before anything has changed. */
  encode(fields: readonly HeaderField[]): number {
    if (headersSize(maxEncodedSize(fields), this.#peer.maxFrameSize) > this.#transport.scratchSize) {
      throw connectionError('INTERNAL_ERROR', 'header list too large to send');
    }
    return this.#encoder.encode(fields, this.#memory, FRAME_HEADER_SIZE);
  }

  /** Sends the block that was just encoded. */
  headers(streamId: number, length: number, endStream: boolean): void {
    const memory = this.#memory;
    this.#write(
      writeHeaders(memory, 0, streamId, endStream, memory, FRAME_HEADER_SIZE, length, this.#peer.maxFrameSize),
    );
  }

  /** DATA, in frames of the size that the peer takes. Returns how many bytes wait to be sent. */
  data(streamId: number, offset: number, length: number): number {
    const most = this.#peer.maxFrameSize;
    let queued = 0;
    let at = offset;
    let left = length;
    while (left > 0) {
      const part = Math.min(left, most);
      queued = this.#transport.writeData(streamId, 0, at, part);
      at += part;
      left -= part;
    }
    return queued;
  }

  endStream(streamId: number): void {
    this.#transport.writeData(streamId, FrameFlag.END_STREAM, FRAME_HEADER_SIZE, 0);
  }

  flush(): number {
    return this.#transport.flush();
  }

  close(): void {
    this.#transport.close();
  }

  /** Sends the frame that was built at the start of the memory. DATA waits for a congested transport, this does not. */
  #write(length: number): void {
    if (this.#transport.write(0, length) > MAX_QUEUED) this.#overflowed();
  }
}

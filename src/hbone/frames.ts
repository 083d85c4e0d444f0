// Hot path: read and written per frame, in place, on the thread's slab. Nothing here allocates except `writeHeaders` when
// the block lies in another array. Measured by bench/codec.ts.

/** Frame types (RFC 9113 §6). */
export const FrameType = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
} as const;

/** Frame flags (RFC 9113 §6); ACK and END_STREAM share a bit on different frame types. */
export const FrameFlag = {
  ACK: 0x1,
  END_STREAM: 0x1,
  END_HEADERS: 0x4,
  PADDED: 0x8,
  PRIORITY: 0x20,
} as const;

/** Setting identifiers (RFC 9113 §6.5.2). */
export const SettingId = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
} as const;

export type SettingId = (typeof SettingId)[keyof typeof SettingId];

/** What a connection assumes before SETTINGS arrive (RFC 9113 §6.5.2, §6.9.2), and the limits of its fields. */
export const FRAME_HEADER_SIZE = 9;
export const DEFAULT_HEADER_TABLE_SIZE = 4096;
export const DEFAULT_WINDOW_SIZE = 65_535;
export const MAX_WINDOW_SIZE = 0x7fffffff;
export const MIN_MAX_FRAME_SIZE = 16_384;
export const MAX_MAX_FRAME_SIZE = 0xffffff;
export const MAX_STREAM_ID = 0x7fffffff;

/** The 24 octets a client sends first (RFC 9113 §3.4). */
export const CLIENT_PREFACE: Uint8Array = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

// Reading. The caller has made sure that the octets are there.

/** Payload length of the frame whose header starts at `offset`, 0..16777215. */
export function frameLength(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 16) | (bytes[offset + 1]! << 8) | bytes[offset + 2]!;
}

export function frameType(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 3]!;
}

export function frameFlags(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 4]!;
}

/** Stream id without the reserved bit (RFC 9113 §4.1: ignored when receiving). */
export function frameStreamId(bytes: Uint8Array, offset: number): number {
  return readUint31(bytes, offset + 5);
}

export function readUint16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

/** A 31-bit number behind a reserved bit: stream ids and window increments. */
export function readUint31(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! & 0x7f) << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!;
}

/** A full 32-bit number: error codes and setting values. */
export function readUint32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0;
}

// Writing. Every function writes at `offset` and returns the number of octets written; the caller has made room.

/** Writes a frame header; the reserved bit is 0. Returns 9. */
export function writeFrameHeader(
  out: Uint8Array,
  offset: number,
  length: number,
  type: number,
  flags: number,
  streamId: number,
): number {
  out[offset] = length >>> 16;
  out[offset + 1] = length >>> 8;
  out[offset + 2] = length;
  out[offset + 3] = type;
  out[offset + 4] = flags;
  writeUint32(out, offset + 5, streamId & 0x7fffffff);
  return FRAME_HEADER_SIZE;
}

/** SETTINGS (RFC 9113 §6.5) with the given pairs in their order: 9 + 6 octets per pair. */
export function writeSettings(
  out: Uint8Array,
  offset: number,
  settings: ReadonlyArray<readonly [id: SettingId, value: number]>,
): number {
  writeFrameHeader(out, offset, settings.length * 6, FrameType.SETTINGS, 0, 0);
  let at = offset + FRAME_HEADER_SIZE;
  for (const [id, value] of settings) {
    out[at] = id >>> 8;
    out[at + 1] = id;
    writeUint32(out, at + 2, value);
    at += 6;
  }
  return at - offset;
}

/** The acknowledgement of the peer's SETTINGS (RFC 9113 §6.5.3): 9 octets. */
export function writeSettingsAck(out: Uint8Array, offset: number): number {
  return writeFrameHeader(out, offset, 0, FrameType.SETTINGS, FrameFlag.ACK, 0);
}

/** WINDOW_UPDATE (RFC 9113 §6.9): 13 octets. Stream 0 is the connection; `increment` is 1..2^31-1. */
export function writeWindowUpdate(out: Uint8Array, offset: number, streamId: number, increment: number): number {
  writeFrameHeader(out, offset, 4, FrameType.WINDOW_UPDATE, 0, streamId);
  writeUint32(out, offset + 9, increment & 0x7fffffff);
  return 13;
}

/** PING (RFC 9113 §6.7): 17 octets. The eight opaque octets are copied from `opaque` at `opaqueOffset`. */
export function writePing(
  out: Uint8Array,
  offset: number,
  ack: boolean,
  opaque: Uint8Array,
  opaqueOffset: number,
): number {
  writeFrameHeader(out, offset, 8, FrameType.PING, ack ? FrameFlag.ACK : 0, 0);
  for (let i = 0; i < 8; i++) out[offset + 9 + i] = opaque[opaqueOffset + i]!;
  return 17;
}

/** GOAWAY (RFC 9113 §6.8): 17 octets and those of `debug` (latin1, may be empty). */
export function writeGoAway(
  out: Uint8Array,
  offset: number,
  lastStreamId: number,
  errorCode: number,
  debug: string,
): number {
  writeFrameHeader(out, offset, 8 + debug.length, FrameType.GOAWAY, 0, 0);
  writeUint32(out, offset + 9, lastStreamId & 0x7fffffff);
  writeUint32(out, offset + 13, errorCode);
  for (let i = 0; i < debug.length; i++) out[offset + 17 + i] = debug.charCodeAt(i);
  return 17 + debug.length;
}

/** RST_STREAM (RFC 9113 §6.4): 13 octets. */
export function writeRstStream(out: Uint8Array, offset: number, streamId: number, errorCode: number): number {
  writeFrameHeader(out, offset, 4, FrameType.RST_STREAM, 0, streamId);
  writeUint32(out, offset + 9, errorCode);
  return 13;
}

/**
 * HEADERS, followed by as many CONTINUATION frames as `maxFrameSize` asks for (RFC 9113 §4.3, §6.2, §6.10).
 *
 * The block lies either in another array or already in `out` at `offset + 9`, where an encoder put it: then nothing is
 * copied unless it must be split. Needs `headersSize(blockLength, maxFrameSize)` octets of room.
 */
export function writeHeaders(
  out: Uint8Array,
  offset: number,
  streamId: number,
  endStream: boolean,
  block: Uint8Array,
  blockOffset: number,
  blockLength: number,
  maxFrameSize: number,
): number {
  const frames = Math.max(1, Math.ceil(blockLength / maxFrameSize));
  // Last frame first: a block that lies in `out` is moved apart without overwriting itself.
  for (let i = frames - 1; i >= 0; i--) {
    const from = blockOffset + i * maxFrameSize;
    const length = Math.min(maxFrameSize, blockLength - i * maxFrameSize);
    const to = offset + i * (maxFrameSize + FRAME_HEADER_SIZE);
    if (block !== out) out.set(block.subarray(from, from + length), to + FRAME_HEADER_SIZE);
    else if (from !== to + FRAME_HEADER_SIZE) out.copyWithin(to + FRAME_HEADER_SIZE, from, from + length);
    const flags = (i === frames - 1 ? FrameFlag.END_HEADERS : 0) | (i === 0 && endStream ? FrameFlag.END_STREAM : 0);
    writeFrameHeader(out, to, length, i === 0 ? FrameType.HEADERS : FrameType.CONTINUATION, flags, streamId);
  }
  return blockLength + frames * FRAME_HEADER_SIZE;
}

/** Octets that `writeHeaders` writes for a block of that length. */
export function headersSize(blockLength: number, maxFrameSize: number): number {
  return blockLength + Math.max(1, Math.ceil(blockLength / maxFrameSize)) * FRAME_HEADER_SIZE;
}

function writeUint32(out: Uint8Array, offset: number, value: number): void {
  out[offset] = value >>> 24;
  out[offset + 1] = value >>> 16;
  out[offset + 2] = value >>> 8;
  out[offset + 3] = value;
}

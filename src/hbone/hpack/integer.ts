import { connectionError } from '../http-error.ts';

/** A place in a header block that reading moves forward. */
export interface Cursor {
  bytes: Uint8Array;
  position: number;
  end: number;
}

/**
 * Continuation octets accepted: numbers below 2^28 plus the prefix, with padding of any length refused. Nothing in a
 * bounded header block is larger (RFC 7541 §5.1 asks for a limit in value and in octets).
 */
const MAX_CONTINUATION_OCTETS = 4;

/** Reads an integer whose first octet holds `prefixBits` bits of it (RFC 7541 §5.1). Throws COMPRESSION_ERROR. */
export function readInteger(cursor: Cursor, prefixBits: number): number {
  const { bytes, end } = cursor;
  let at = cursor.position;
  if (at >= end) throw truncated();
  const mask = (1 << prefixBits) - 1;
  let value = bytes[at++]! & mask;
  if (value === mask) {
    let shift = 0;
    let octet: number;
    do {
      if (at >= end) throw truncated();
      if (shift === 7 * MAX_CONTINUATION_OCTETS) {
        throw connectionError('COMPRESSION_ERROR', 'integer in header block is too large');
      }
      octet = bytes[at++]!;
      value += (octet & 0x7f) << shift;
      shift += 7;
    } while (octet >= 0x80);
  }
  cursor.position = at;
  return value;
}

/**
 * Writes `value` with a prefix of `prefixBits` bits, the bits above the prefix taken from `pattern` (RFC 7541 §5.1).
 * Returns the offset behind it.
 */
export function writeInteger(
  out: Uint8Array,
  offset: number,
  prefixBits: number,
  pattern: number,
  value: number,
): number {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    out[offset] = pattern | value;
    return offset + 1;
  }
  out[offset] = pattern | mask;
  let at = offset + 1;
  let rest = value - mask;
  while (rest >= 0x80) {
    out[at++] = 0x80 | (rest & 0x7f);
    rest = Math.floor(rest / 0x80);
  }
  out[at++] = rest;
  return at;
}

function truncated() {
  return connectionError('COMPRESSION_ERROR', 'header block ends inside an integer');
}

import assert from 'node:assert/strict';
import { type HeaderField, type HpackDecoder, type HpackEncoder, maxEncodedSize } from '../../../../src/hbone/hpack.ts';
import { Http2Error } from '../../../../src/hbone/http-error.ts';

/** One encoded header block in an array of its own. */
export function encodeBlock(encoder: HpackEncoder, fields: readonly HeaderField[]): Uint8Array {
  const out = new Uint8Array(maxEncodedSize(fields));
  return out.subarray(0, encoder.encode(fields, out, 0));
}

/** The fields of one block, which must not exceed the list size. */
export function decodeBlock(decoder: HpackDecoder, block: Uint8Array): HeaderField[] {
  const fields = decoder.decode(block, 0, block.length);
  assert.ok(fields !== 'list-too-large', 'list too large');
  return fields;
}

/** Asserts the connection error COMPRESSION_ERROR, however the octets around the block could complete it. */
export function assertCompressionError(decoder: HpackDecoder, block: Uint8Array): void {
  const slab = new Uint8Array(block.length + 16);
  slab.set(block, 8);
  assert.throws(
    () => decoder.decode(slab, 8, block.length),
    (error) =>
      error instanceof Http2Error && error.code === 'HTTP2_COMPRESSION_ERROR' && error.scope.kind === 'connection',
  );
}

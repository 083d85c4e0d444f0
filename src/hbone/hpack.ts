/** HPACK, the header compression of HTTP/2 (RFC 7541): what the rest of hbone uses of it. */
export { HpackDecoder, type HpackDecoderOptions } from './hpack/decoder.ts';
export { HpackEncoder, type HpackEncoderOptions, maxEncodedSize } from './hpack/encoder.ts';
export type { HeaderField } from './hpack/static-table.ts';

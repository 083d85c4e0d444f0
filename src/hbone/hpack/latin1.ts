/**
 * The octets `bytes[start, end)` as a string of one character each (ISO 8859-1, which is what HPACK strings are here:
 * octets). `Buffer#toString('latin1')` does the same but insists on a Buffer.
 */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  return slice.call(bytes, start, end);
}

const slice = (Buffer.prototype as unknown as { latin1Slice(this: Uint8Array, start: number, end: number): string })
  .latin1Slice;

/**
 * The octets `bytes[start, end)` as a string of one character each (ISO 8859-1, which is what HPACK strings are here:
 * octets). `Buffer#toString('latin1')` does the same but insists on a Buffer.
 */
export function readLatin1(bytes: Uint8Array, start: number, end: number): string {
  return buffer.latin1Slice.call(bytes, start, end);
}

/** Writes the characters of `text` as octets; the caller has made room. Four times as fast as a loop (measured). */
export function writeLatin1(out: Uint8Array, offset: number, text: string): void {
  buffer.latin1Write.call(out, text, offset, text.length);
}

const buffer = Buffer.prototype as unknown as {
  latin1Slice(this: Uint8Array, start: number, end: number): string;
  latin1Write(this: Uint8Array, text: string, offset: number, length: number): number;
};

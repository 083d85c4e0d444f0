/**
 * The part of DER (X.690) that certificates need: a writer of the types they are made of, and a reader that finds an
 * element inside one that OpenSSL has already accepted.
 */

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Tag, length, content. */
export function element(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag, ...lengthOctets(content.length)]), content]);
}

export function sequence(...contents: readonly Uint8Array[]): Buffer {
  return element(TAG.sequence, ...contents);
}

/** An element of a context-specific tag that holds other elements ([n], constructed). */
export function explicit(n: number, ...contents: readonly Uint8Array[]): Buffer {
  return element(0xa0 | n, ...contents);
}

/** A context-specific element that replaces the type's own tag ([n] IMPLICIT, primitive). */
export function implicit(n: number, content: Uint8Array): Buffer {
  return element(0x80 | n, content);
}

/** A non-negative INTEGER from its big-endian bytes, in the fewest octets (X.690 §8.3.2). */
export function unsignedInteger(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? Buffer.of(0) : bytes.subarray(first);
  return element(TAG.integer, digits[0]! >= 0x80 ? Buffer.of(0) : Buffer.alloc(0), digits);
}

export const TRUE = element(TAG.boolean, Buffer.of(0xff));

/** An OBJECT IDENTIFIER from its dotted form. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  return element(TAG.oid, Buffer.from([first * 40 + second, ...rest].flatMap(base128)));
}

/** A BIT STRING of whole octets. */
export function bitString(bytes: Uint8Array): Buffer {
  return element(TAG.bitString, Buffer.of(0), bytes);
}

/** A BIT STRING of named bits, bit 0 first, without trailing zeros (X.690 §11.2.2); at most eight. */
export function namedBits(...bits: readonly number[]): Buffer {
  const octet = bits.reduce((sum, bit) => sum | (0x80 >> bit), 0);
  return element(TAG.bitString, Buffer.of(7 - Math.max(...bits), octet));
}

/** Time in seconds: UTCTime until 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5). */
export function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, '');
  return ms < Date.UTC(2050, 0)
    ? element(TAG.utcTime, Buffer.from(digits.slice(2)))
    : element(TAG.generalizedTime, Buffer.from(digits));
}

/** Where an element is inside the bytes it was read from. */
export interface Element {
  readonly tag: number;
  /** The content alone. */
  readonly content: Buffer;
  /** The whole element, tag and length included. */
  readonly whole: Buffer;
}

/** The elements that follow each other in `bytes`. @throws RangeError when one reaches beyond the end. */
export function elements(bytes: Buffer): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const { length, start } = readLength(bytes, at + 1);
    const end = start + length;
    if (end > bytes.length) throw new RangeError('an element reaches beyond the end');
    found.push({ tag: bytes.readUInt8(at), content: bytes.subarray(start, end), whole: bytes.subarray(at, end) });
    at = end;
  }
  return found;
}

function readLength(bytes: Buffer, at: number): { length: number; start: number } {
  const first = bytes.readUInt8(at);
  if (first < 0x80) return { length: first, start: at + 1 };
  const octets = first & 0x7f;
  if (octets === 0 || octets > 4) throw new RangeError('a length of a form that DER does not permit');
  return { length: bytes.readUIntBE(at + 1, octets), start: at + 1 + octets };
}

function lengthOctets(length: number): number[] {
  if (length < 0x80) return [length];
  const digits: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return [0x80 | digits.length, ...digits];
}

function base128(arc: number): number[] {
  const digits = [arc % 128];
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) digits.unshift(0x80 | (rest % 128));
  return digits;
}

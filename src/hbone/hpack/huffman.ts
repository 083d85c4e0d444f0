// Decoding steps a state machine of 256 states by four bits (16 KiB for the thread): as fast as a table of code prefixes,
// and stepping by eight bits would take 512 KiB of cache (measured).
import { connectionError } from '../http-error.ts';
import { readLatin1 } from './latin1.ts';

/**
 * Code lengths of the 256 octets, 16 to a line, and of EOS (RFC 7541 appendix B). The code is canonical: codes are
 * numbered by length, then by octet, so the lengths say it all.
 */
const CODE_LENGTHS = Uint8Array.of(
  ...[13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28],
  ...[28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28],
  ...[6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6],
  ...[5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10],
  ...[13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
  ...[7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6],
  ...[15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5],
  ...[6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28],
  ...[20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23],
  ...[24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24],
  ...[22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23],
  ...[21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23],
  ...[26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25],
  ...[19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27],
  ...[20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23],
  ...[26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26],
  30,
);
const EOS = 256;

const CODES = assignCodes();

/** What one step of the decoder yields: bits 0-7 the next state, 8-15 an octet when EMIT is set. */
const EMIT = 1 << 16;
/** The string may end here: what was read since the last octet is at most seven bits of EOS (RFC 7541 §5.2). */
const MAY_END = 1 << 17;
/** EOS itself was read. */
const FAIL = 1 << 18;
const STEPS = buildSteps();

/** Octets that the Huffman code of `text` (latin1) takes, padding included. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += CODE_LENGTHS[text.charCodeAt(i)]!;
  return (bits + 7) >>> 3;
}

/** Writes the Huffman code of `text` (latin1), padded with ones (RFC 7541 §5.2). Returns the offset behind it. */
export function writeHuffman(out: Uint8Array, offset: number, text: string): number {
  let at = offset;
  let pending = 0;
  let bits = 0;
  for (let i = 0; i < text.length; i++) {
    const octet = text.charCodeAt(i);
    let code = CODES[octet]!;
    let length = CODE_LENGTHS[octet]!;
    if (length > 24) {
      // With up to seven bits pending, more than 24 would not fit an int32: the first part goes ahead.
      pending = (pending << (length - 16)) | (code >>> 16);
      bits += length - 16;
      while (bits >= 8) {
        bits -= 8;
        out[at++] = pending >>> bits;
      }
      code &= 0xffff;
      length = 16;
    }
    pending = (pending << length) | code;
    bits += length;
    while (bits >= 8) {
      bits -= 8;
      out[at++] = pending >>> bits;
    }
  }
  if (bits > 0) out[at++] = (pending << (8 - bits)) | (0xff >>> bits);
  return at;
}

/**
 * Decodes `bytes[start, end)` into a latin1 string. Throws COMPRESSION_ERROR for an encoded EOS and for padding that is
 * longer than seven bits or not all ones (RFC 7541 §5.2).
 */
export function readHuffman(bytes: Uint8Array, start: number, end: number): string {
  // The shortest code has five bits, so there are at most 8/5 octets for each one read.
  const needed = Math.ceil(((end - start) * 8) / 5);
  const decoded = needed <= scratch.length ? scratch : new Uint8Array(needed);
  let length = 0;
  let seen = 0;
  let step = MAY_END;
  for (let at = start; at < end; at++) {
    const octet = bytes[at]!;
    step = STEPS[((step & 0xff) << 4) | (octet >>> 4)]!;
    if ((step & EMIT) !== 0) decoded[length++] = step >>> 8;
    seen |= step;
    step = STEPS[((step & 0xff) << 4) | (octet & 0xf)]!;
    if ((step & EMIT) !== 0) decoded[length++] = step >>> 8;
    seen |= step;
  }
  if ((step & MAY_END) === 0 || (seen & FAIL) !== 0) {
    throw connectionError('COMPRESSION_ERROR', 'Huffman-coded string with an EOS or with wrong padding');
  }
  return readLatin1(decoded, 0, length);
}

const scratch = new Uint8Array(4096);

function assignCodes(): Uint32Array {
  const codes = new Uint32Array(CODE_LENGTHS.length);
  let next = 0;
  for (let length = 1; length <= 30; length++) {
    next <<= 1;
    for (let octet = 0; octet <= EOS; octet++) if (CODE_LENGTHS[octet] === length) codes[octet] = next++;
  }
  return codes;
}

function buildSteps(): Uint32Array {
  // The code tree: 256 inner nodes, the root being 0; a child is an inner node, or a leaf as -1 - octet.
  const children: number[] = [0, 0];
  for (let octet = 0; octet <= EOS; octet++) {
    let node = 0;
    for (let bit = CODE_LENGTHS[octet]! - 1; bit > 0; bit--) {
      const edge = node * 2 + ((CODES[octet]! >>> bit) & 1);
      if (children[edge] === 0) {
        children[edge] = children.length / 2;
        children.push(0, 0);
      }
      node = children[edge]!;
    }
    children[node * 2 + (CODES[octet]! & 1)] = -1 - octet;
  }
  const mayEnd = new Set([0]);
  for (let node = 0, depth = 1; depth <= 7; depth++) {
    node = children[node * 2 + 1]!;
    mayEnd.add(node);
  }
  const steps = new Uint32Array((children.length / 2) << 4);
  for (let i = 0; i < steps.length; i++) {
    let node = i >>> 4;
    let result = 0;
    for (let bit = 3; bit >= 0; bit--) {
      const child = children[node * 2 + ((i >>> bit) & 1)]!;
      node = Math.max(child, 0);
      if (child === -1 - EOS) result |= FAIL;
      else if (child < 0) result |= EMIT | ((-1 - child) << 8);
    }
    steps[i] = result | node | (mayEnd.has(node) ? MAY_END : 0);
  }
  return steps;
}

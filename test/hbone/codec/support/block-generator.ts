import { huffmanLength, writeHuffman } from '../../../../src/hbone/hpack/huffman.ts';
import { writeInteger } from '../../../../src/hbone/hpack/integer.ts';
import type { HeaderField } from '../../../../src/hbone/hpack.ts';
import type { Random } from './random.ts';

/** A header block of well-formed representations, of which some refer to nothing or break a rule. */
export function randomBlock(random: Random): Uint8Array {
  const pieces: Uint8Array[] = [];
  while (random.chance(0.2)) pieces.push(integer(random, 5, 0x20, random.pick([0, 31, 33, 64, 100, 200, 4096, 5000])));
  const fields = random.int(8);
  for (let i = 0; i < fields; i++) pieces.push(...representation(random));
  const block = Buffer.concat(pieces);
  return random.chance(0.3) ? mutated(random, block) : block;
}

/** Changes a few octets: flipped, cut off, inserted, repeated. */
export function mutated(random: Random, original: Uint8Array): Uint8Array {
  let bytes = Buffer.from(original);
  for (let i = 1 + random.int(3); i > 0; i--) {
    const at = random.int(bytes.length + 1);
    switch (random.int(4)) {
      case 0:
        if (at < bytes.length) bytes[at]! ^= 1 << random.int(8);
        break;
      case 1:
        bytes = bytes.subarray(0, at);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), random.octets(1 + random.int(4)), bytes.subarray(at)]);
        break;
      default:
        bytes = Buffer.concat([bytes, bytes.subarray(at)]);
    }
  }
  return bytes;
}

/** A header list as an encoder gets it: few names and values, so that they repeat; all octets. */
export function randomFields(random: Random): HeaderField[] {
  return Array.from({ length: random.int(8) }, () => [randomName(random), randomText(random)] as const);
}

export function randomName(random: Random): string {
  return random.pick(NAMES);
}

export function randomText(random: Random): string {
  if (random.chance(0.5)) return random.pick(VALUES);
  const octets = random.octets(random.int(random.chance(0.05) ? 3000 : 40));
  return random.chance(0.5) ? Buffer.from(octets).toString('latin1') : Buffer.from(octets).toString('hex');
}

const NAMES = [
  ...[':method', ':authority', ':status', ':path', 'baggage', 'forwarded', 'traceparent', 'x-forwarded-network'],
  ...['host', 'cookie', 'authorization', 'accept', 'www-authenticate', 'a', 'b', 'c', 'Upper', '', 'with space', 'é'],
];
const VALUES = ['', 'GET', 'CONNECT', '200', '/', '10.0.0.1:8080', '0', '00000', '~~~', 'k8s.namespace.name=default'];

function representation(random: Random): Uint8Array[] {
  const index = random.chance(0.9) ? 1 + random.int(70) : random.int(300);
  if (random.chance(0.4)) return [integer(random, 7, 0x80, index)];
  const [bits, pattern] = random.pick([
    [6, 0x40],
    [6, 0x40],
    [4, 0x00],
    [4, 0x10],
  ] as const);
  if (random.chance(0.5)) return [integer(random, bits, pattern, index), ...text(random, randomText(random))];
  return [integer(random, bits, pattern, 0), ...text(random, randomName(random)), ...text(random, randomText(random))];
}

function text(random: Random, content: string): Uint8Array[] {
  if (random.chance(0.03)) {
    const noise = random.octets(random.int(8));
    return [integer(random, 7, 0x80, noise.length), noise];
  }
  if (random.chance(0.5)) return [integer(random, 7, 0, content.length), Buffer.from(content, 'latin1')];
  const coded = new Uint8Array(huffmanLength(content));
  writeHuffman(coded, 0, content);
  return [integer(random, 7, 0x80, coded.length), coded];
}

function integer(random: Random, bits: number, pattern: number, value: number): Uint8Array {
  const out = new Uint8Array(12);
  let end = writeInteger(out, 0, bits, pattern, value);
  if (end > 1 && random.chance(0.05)) {
    // The same number with padding: allowed as long as the limit on octets is kept.
    out[end - 1]! |= 0x80;
    while (random.chance(0.5) && end < 10) out[end++] = 0x80;
    out[end++] = 0;
  }
  return out.subarray(0, end);
}

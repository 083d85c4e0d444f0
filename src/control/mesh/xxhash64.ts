/**
 * xxHash64 with seed 0 (the specification of xxHash, version 0.1.1), in 32-bit halves: BigInt takes ten times as long. Two
 * of 200 000 bodies differ in their versions unless they are equal; nothing secret depends on it.
 *
 * A function that makes a number of 64 bits leaves it in `high` and `low`.
 */
let high = 0;
let low = 0;

const PRIME_1_HIGH = 0x9e3779b1;
const PRIME_1_LOW = 0x85ebca87;
const PRIME_2_HIGH = 0xc2b2ae3d;
const PRIME_2_LOW = 0x27d4eb4f;
const PRIME_3_HIGH = 0x165667b1;
const PRIME_3_LOW = 0x9e3779f9;
const PRIME_4_HIGH = 0x85ebca77;
const PRIME_4_LOW = 0xc2b2ae63;
const PRIME_5_HIGH = 0x27d4eb2f;
const PRIME_5_LOW = 0x165667c5;

/** Four numbers of 64 bits, each as its low and its high half. */
const lanes = new Int32Array(8);

/** The hash as 16 or fewer lower-case hexadecimal digits, without leading zeros. */
export function xxHash64(bytes: Uint8Array): string {
  const { length } = bytes;
  let at = 0;
  if (length >= 32) {
    for (; at + 32 <= length; at += 32) {
      if (at === 0) startLanes();
      for (let lane = 0; lane < 4; lane++) {
        const from = at + lane * 8;
        round(lanes[lane * 2 + 1]!, lanes[lane * 2]!, word(bytes, from + 4), word(bytes, from));
        lanes[lane * 2] = low;
        lanes[lane * 2 + 1] = high;
      }
    }
    mergeLanes();
  } else {
    high = PRIME_5_HIGH;
    low = PRIME_5_LOW;
  }
  add(0, length);
  for (; at + 8 <= length; at += 8) {
    const [h, l] = [high, low];
    round(0, 0, word(bytes, at + 4), word(bytes, at));
    high ^= h;
    low ^= l;
    rotate(27);
    multiply(high, low, PRIME_1_HIGH, PRIME_1_LOW);
    add(PRIME_4_HIGH, PRIME_4_LOW);
  }
  if (at + 4 <= length) {
    const [h, l] = [high, low];
    multiply(0, word(bytes, at), PRIME_1_HIGH, PRIME_1_LOW);
    high ^= h;
    low ^= l;
    rotate(23);
    multiply(high, low, PRIME_2_HIGH, PRIME_2_LOW);
    add(PRIME_3_HIGH, PRIME_3_LOW);
    at += 4;
  }
  for (; at < length; at++) {
    const [h, l] = [high, low];
    multiply(0, bytes[at]!, PRIME_5_HIGH, PRIME_5_LOW);
    high ^= h;
    low ^= l;
    rotate(11);
    multiply(high, low, PRIME_1_HIGH, PRIME_1_LOW);
  }
  // The avalanche.
  shiftXor(33);
  multiply(high, low, PRIME_2_HIGH, PRIME_2_LOW);
  shiftXor(29);
  multiply(high, low, PRIME_3_HIGH, PRIME_3_LOW);
  shiftXor(32);
  return high === 0 ? (low >>> 0).toString(16) : (high >>> 0).toString(16) + (low >>> 0).toString(16).padStart(8, '0');
}

function startLanes(): void {
  high = PRIME_1_HIGH;
  low = PRIME_1_LOW;
  add(PRIME_2_HIGH, PRIME_2_LOW);
  lanes[0] = low;
  lanes[1] = high;
  lanes[2] = PRIME_2_LOW;
  lanes[3] = PRIME_2_HIGH;
  lanes[4] = 0;
  lanes[5] = 0;
  // 0 - PRIME_1
  high = ~PRIME_1_HIGH;
  low = ~PRIME_1_LOW;
  add(0, 1);
  lanes[6] = low;
  lanes[7] = high;
}

const LANE_ROTATIONS = [1, 7, 12, 18] as const;

function mergeLanes(): void {
  let [sumHigh, sumLow] = [0, 0];
  for (let lane = 0; lane < 4; lane++) {
    high = lanes[lane * 2 + 1]!;
    low = lanes[lane * 2]!;
    rotate(LANE_ROTATIONS[lane]!);
    add(sumHigh, sumLow);
    sumHigh = high;
    sumLow = low;
  }
  for (let lane = 0; lane < 4; lane++) {
    round(0, 0, lanes[lane * 2 + 1]!, lanes[lane * 2]!);
    multiply(high ^ sumHigh, low ^ sumLow, PRIME_1_HIGH, PRIME_1_LOW);
    add(PRIME_4_HIGH, PRIME_4_LOW);
    sumHigh = high;
    sumLow = low;
  }
}

/** accumulator + input × PRIME_2, rotated by 31, × PRIME_1 */
function round(accHigh: number, accLow: number, inputHigh: number, inputLow: number): void {
  multiply(inputHigh, inputLow, PRIME_2_HIGH, PRIME_2_LOW);
  add(accHigh, accLow);
  rotate(31);
  multiply(high, low, PRIME_1_HIGH, PRIME_1_LOW);
}

/** The lower 64 bits of a product. */
function multiply(aHigh: number, aLow: number, bHigh: number, bLow: number): void {
  const [a0, a1] = [aLow & 0xffff, aLow >>> 16];
  const [b0, b1] = [bLow & 0xffff, bLow >>> 16];
  const lowest = a0 * b0;
  // Below 2^34, so exact.
  const middle = a1 * b0 + (lowest >>> 16) + ((a0 * b1) & 0xffff);
  const upper = a1 * b1 + Math.floor(middle / 0x10000) + ((a0 * b1) >>> 16);
  low = ((middle & 0xffff) << 16) | (lowest & 0xffff);
  high = (upper + Math.imul(aHigh, bLow) + Math.imul(aLow, bHigh)) | 0;
}

function add(otherHigh: number, otherLow: number): void {
  const sum = (low >>> 0) + (otherLow >>> 0);
  high = (high + otherHigh + (sum > 0xffffffff ? 1 : 0)) | 0;
  low = sum | 0;
}

/** To the left, by 1 to 31 bits. */
function rotate(bits: number): void {
  const h = high;
  high = (h << bits) | (low >>> (32 - bits));
  low = (low << bits) | (h >>> (32 - bits));
}

function shiftXor(bits: number): void {
  if (bits >= 32) {
    low ^= high >>> (bits - 32);
  } else {
    const h = high;
    high ^= h >>> bits;
    low ^= (low >>> bits) | (h << (32 - bits));
  }
}

/** 32 bits, little-endian. */
function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzz } from './fuzz.ts';

/** Enough for some ten thousand cases; CULVERT_FUZZ_SECONDS asks for more. */
const DEFAULT_SECONDS = 3;

test('codecs throw nothing undeclared, keep their tables in step and do not grow', () => {
  const seconds = Number(process.env.CULVERT_FUZZ_SECONDS ?? DEFAULT_SECONDS);
  const { cases, heapGrowth } = fuzz(seconds, Date.now());
  assert.ok(cases > 100, `${cases} cases`);
  assert.ok(heapGrowth < 8 * 1024 * 1024, `heap grew by ${heapGrowth} octets`);
});

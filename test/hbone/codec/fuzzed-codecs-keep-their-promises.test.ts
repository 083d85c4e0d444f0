import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzSeconds, fuzzSeed } from '../support/fuzzing.ts';
import { fuzz } from './fuzz.ts';

test('codecs throw nothing undeclared, keep their tables in step and do not grow', {
  timeout: (fuzzSeconds() + 120) * 1000,
}, (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`CULVERT_SEED=${seed}`);
  const { cases, heapGrowth } = fuzz(fuzzSeconds(), seed);
  t.diagnostic(`${cases} cases, the heap has grown by ${heapGrowth} octets`);
  assert.ok(cases > 100, `${cases} cases`);
  assert.ok(heapGrowth < 8 * 1024 * 1024, `heap grew by ${heapGrowth} octets`);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzSeconds, fuzzSeed } from '../support/fuzzing.ts';
import { fuzz } from './fuzz.ts';

test('connections keep every byte, end as RFC 9113 says when it is broken, throw nothing and do not grow', {
  timeout: (fuzzSeconds() + 120) * 1000,
}, (t) => {
  const seed = fuzzSeed();
  t.diagnostic(`CULVERT_SEED=${seed}`);
  const { cases, heapGrowth } = fuzz(fuzzSeconds(), seed);
  t.diagnostic(`${cases} cases, the heap has grown by ${heapGrowth} octets`);
  assert.ok(cases > 100, `${cases} cases`);
  assert.ok(heapGrowth < 8 * 1024 * 1024, `heap grew by ${heapGrowth} octets`);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRelease } from '../../src/worker/memory-release.ts';

const cases: readonly { what: string; counts: readonly number[]; trims: number }[] = [
  { what: 'a crowd has left', counts: [10, 4000, 3000, 900], trims: 1 },
  { what: 'it is given back once, not at every look', counts: [4000, 900, 800, 10, 0], trims: 1 },
  { what: 'a second crowd has left', counts: [4000, 0, 4000, 0], trims: 2 },
  { what: 'few have left', counts: [4000, 3999, 2000], trims: 0 },
  { what: 'there never was a crowd', counts: [900, 0], trims: 0 },
];

for (const { what, counts, trims } of cases) {
  test(`${what}: ${trims} times`, () => {
    let trimmed = 0;
    const release = new MemoryRelease(() => trimmed++);
    for (const count of counts) release.observe(count);
    assert.equal(trimmed, trims);
  });
}

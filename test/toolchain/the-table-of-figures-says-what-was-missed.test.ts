import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Bound, type Figure, formatTable, median, meets } from '../../bench/harness/figures.ts';

test('the median is the middle value, or the mean of the two middle ones, whatever the order', () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([10, 1, 2, 4]), 3);
  assert.ok(Number.isNaN(median([])));
});

const bounds: [value: number, bound: Bound, met: boolean][] = [
  [1.5, { atLeast: 1.5 }, true],
  [1.49, { atLeast: 1.5 }, false],
  [90, { atMost: 90 }, true],
  [90.1, { atMost: 90 }, false],
  [Number.NaN, { atLeast: 0 }, false],
  [Number.NaN, { atMost: 1 }, false],
  [1, null, true],
];
for (const [value, bound, met] of bounds) {
  test(`${value} ${met ? 'meets' : 'misses'} ${JSON.stringify(bound)}`, () => assert.equal(meets(value, bound), met));
}

test('the table shows figure, bound and verdict in columns', () => {
  const figure = (what: string, value: number, bound: Bound): Figure => ({
    what,
    measured: 'a 1/s',
    value,
    printed: `${value}×`,
    bound,
  });
  const table = formatTable([
    figure('first', 2, { atLeast: 1 }),
    figure('second one', 0.5, { atLeast: 1 }),
    figure('third', 3, null),
  ]);
  assert.equal(
    table,
    `| what       | measured | figure | wanted |        |
| ---------- | -------- | ------ | ------ | ------ |
| first      | a 1/s    | 2×     | ≥ 1    | ok     |
| second one | a 1/s    | 0.5×   | ≥ 1    | MISSED |
| third      | a 1/s    | 3×     |        |        |`,
  );
});

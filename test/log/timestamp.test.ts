import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTimestamp, nowMicros } from '../../src/log/timestamp.ts';

const cases: readonly (readonly [micros: number, text: string])[] = [
  [0, '1970-01-01T00:00:00.000000Z'],
  [1_785_585_600_123_456, '2026-08-01T12:00:00.123456Z'],
  [1_785_585_600_999_999, '2026-08-01T12:00:00.999999Z'],
  [1_785_585_601_000_000, '2026-08-01T12:00:01.000000Z'],
  [1_785_585_600_000_001, '2026-08-01T12:00:00.000001Z'],
];

for (const [micros, text] of cases) {
  test(`${micros} µs is ${text}`, () => assert.equal(formatTimestamp(micros), text));
}

test('the clock has microseconds and agrees with the system clock', () => {
  const readings = Array.from({ length: 1000 }, nowMicros);
  assert.ok(readings.some((micros) => micros % 1000 !== 0));
  assertAgrees();
  assert.ok(readings.every((micros) => Number.isInteger(micros)));
});

test('the clock follows the system clock when that is set', (context) => {
  nowMicros();
  const tomorrow = Date.now() + 86_400_000;
  context.mock.method(Date, 'now', () => tomorrow);
  assert.equal(Math.floor(nowMicros() / 1000), tomorrow);
  context.mock.restoreAll();
  assertAgrees();
});

/** The thread may be kept waiting between two readings, so that only their order says something. */
function assertAgrees(): void {
  const before = Date.now();
  const now = nowMicros() / 1000;
  const after = Date.now();
  assert.ok(now > before - 3 && now < after + 3, `${now} is not between ${before} and ${after}`);
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Deadline, Deadlines } from '../../src/deadlines.ts';

const DURATION = 100;

test('deadlines fire once, in the order they were set, and those that were cleared never do', () => {
  const steps = fc.array(
    fc.oneof(
      fc.record({ kind: fc.constant('set' as const) }),
      fc.record({ kind: fc.constant('clear' as const), which: fc.nat(20) }),
      fc.record({ kind: fc.constant('wait' as const), time: fc.integer({ min: 1, max: 80 }) }),
    ),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(steps, (list) => {
      let now = 0;
      const deadlines = new Deadlines(DURATION, () => now);
      const set: Deadline[] = [];
      const fired: number[] = [];
      const dueAt: (number | null)[] = [];
      const expected: number[] = [];
      for (const step of list) {
        if (step.kind === 'set') {
          const number = set.length;
          set.push(deadlines.set(() => fired.push(number)));
          dueAt.push(now + DURATION);
        } else if (step.kind === 'clear') {
          set[step.which]?.clear();
          if (step.which < dueAt.length) dueAt[step.which] = null;
        } else {
          now += step.time;
          deadlines.tick(now);
          for (const [number, at] of dueAt.entries()) {
            if (at === null || at > now) continue;
            expected.push(number);
            dueAt[number] = null;
          }
        }
      }
      assert.deepEqual(fired, expected);
    }),
  );
});

test('a deadline that fires may clear others and set new ones', () => {
  let now = 0;
  const deadlines = new Deadlines(DURATION, () => now);
  const fired: string[] = [];
  deadlines.set(() => {
    fired.push('first');
    second.clear();
    deadlines.set(() => fired.push('new'));
  });
  const second = deadlines.set(() => fired.push('second'));
  deadlines.set(() => fired.push('third'));
  now = DURATION;
  deadlines.tick(now);
  assert.deepEqual(fired, ['first', 'third']);
  now += DURATION;
  deadlines.tick(now);
  assert.deepEqual(fired, ['first', 'third', 'new']);
});

test('deadlines of no length are off', () => {
  let now = 0;
  const deadlines = new Deadlines(0, () => now);
  deadlines.set(() => assert.fail('fired')).clear();
  deadlines.set(() => assert.fail('fired'));
  now = 1e9;
  deadlines.tick(now);
});

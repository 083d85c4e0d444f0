import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCaretaker } from '../../src/control/caretaker.ts';

test('what is looked at from time to time is not begun again while it is underway, but afterwards', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const attempts: PromiseWithResolvers<void>[] = [];
  const caretaker = createCaretaker(
    () => {
      attempts.push(Promise.withResolvers());
      return attempts.at(-1)!.promise;
    },
    { everyMs: 1000, failed: (error) => assert.fail(String(error)) },
  );
  t.after(() => caretaker.close());
  caretaker.tend();
  await settled();
  assert.equal(attempts.length, 1);
  t.mock.timers.tick(1000);
  assert.equal(attempts.length, 1);
  attempts[0]!.resolve();
  await settled();
  assert.equal(attempts.length, 2);
  attempts[1]!.resolve();
  await settled();
  assert.equal(attempts.length, 2);
  t.mock.timers.tick(1000);
  assert.equal(attempts.length, 3);
});

test('a failure is told, and followed by another attempt', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const failures: number[] = [];
  let attempts = 0;
  const caretaker = createCaretaker(
    async () => {
      if (++attempts === 1) throw new Error('away');
    },
    { everyMs: 3_600_000, failed: (_error, waitMs) => void failures.push(waitMs) },
  );
  t.after(() => caretaker.close());
  caretaker.tend();
  await settled();
  assert.equal(failures.length, 1);
  t.mock.timers.tick(failures[0]!);
  assert.equal(attempts, 2);
});

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

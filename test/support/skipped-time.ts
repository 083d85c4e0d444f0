import type { TestContext } from 'node:test';

/** Lets time pass in a moment for what looks at the clock (`performance.now`); timers go on as before. */
export function skippableTime(t: TestContext): (ms: number) => void {
  const clock = performance.now.bind(performance);
  let skipped = 0;
  t.mock.method(performance, 'now', () => clock() + skipped);
  return (ms) => {
    skipped += ms;
  };
}

/**
 * Lets every thread stand still now and then, as on a machine that has no processor for it. What only holds because
 * one thread happens to be faster than another shows itself, in a test or in the agent:
 *
 *     NODE_OPTIONS="--import $PWD/test/support/stalls.ts" node_modules/.bin/node --test test/e2e/…
 */
const EVERY = Number(process.env.STALL_EVERY ?? 150);
const LONGEST = Number(process.env.STALL_LONGEST ?? 120);
const never = new Int32Array(new SharedArrayBuffer(4));

function arm(): void {
  // Before the events of a turn of the loop or after them: what the turn leaves for its end is then late.
  const turn = Math.random() < 0.5 ? standStill : () => setImmediate(standStill);
  setTimeout(turn, Math.random() * 2 * EVERY).unref();
}

function standStill(): void {
  // Short ones are the rule.
  Atomics.wait(never, 0, 0, Math.random() ** 2 * LONGEST);
  arm();
}

arm();

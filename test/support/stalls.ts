/**
 * Lets every thread stand still now and then, as on a machine that has no processor for it, and lets timers fire late,
 * each in its own measure. What only holds because one thread happens to be faster than another, or because two times
 * are multiples of each other, shows itself, in a test or in the agent:
 *
 *     NODE_OPTIONS="--import $PWD/test/support/stalls.ts" node_modules/.bin/node --test test/e2e/…
 */
import { syncBuiltinESMExports } from 'node:module';
import timers from 'node:timers';
import promises from 'node:timers/promises';

/** Mean time between two stalls, and the longest one, in ms. */
const EVERY = Number(process.env.STALL_EVERY ?? 150);
const LONGEST = Number(process.env.STALL_LONGEST ?? 120);
/** By which part of its time a timer is late at most. */
const LATENESS = Number(process.env.STALL_LATENESS ?? 0.1);

const never = new Int32Array(new SharedArrayBuffer(4));
const { setTimeout: setPunctual } = timers;

function arm(): void {
  // Before the events of a turn of the loop or after them: what the turn leaves for its end is then late.
  const turn = Math.random() < 0.5 ? standStill : () => setImmediate(standStill);
  setPunctual(turn, Math.random() * 2 * EVERY).unref();
}

function standStill(): void {
  // Short ones are the rule.
  Atomics.wait(never, 0, 0, Math.random() ** 2 * LONGEST);
  arm();
}

/** A timer that was to wait longer than this, in ms, would not wait at all. */
const LONGEST_WAIT = 2 ** 31 - 1;

const late = (ms: unknown) =>
  typeof ms === 'number' && ms <= LONGEST_WAIT ? Math.min(LONGEST_WAIT, ms * (1 + Math.random() * LATENESS)) : ms;

/** The same with its time prolonged, with whatever else belongs to it. */
function unpunctual<F>(punctual: F, time: number): F {
  const start = punctual as (...args: unknown[]) => unknown;
  const timer = (...args: unknown[]) => start(...args.map((arg, index) => (index === time ? late(arg) : arg)));
  return Object.defineProperties(timer, Object.getOwnPropertyDescriptors(punctual)) as F;
}

if (EVERY > 0) arm();
if (LATENESS > 0) {
  globalThis.setTimeout = timers.setTimeout = unpunctual(timers.setTimeout, 1);
  globalThis.setInterval = timers.setInterval = unpunctual(timers.setInterval, 1);
  promises.setTimeout = unpunctual(promises.setTimeout, 0);
  promises.setInterval = unpunctual(promises.setInterval, 0);
  syncBuiltinESMExports();
}

import assert from 'node:assert/strict';
import { PATIENCE_MS } from '../../support/patience.ts';

/** Waits by turns of the loop until it is so: without timers, which are the test's own where this is used. */
export async function inTurns(what: string, holds: () => boolean): Promise<void> {
  for (const end = Date.now() + PATIENCE_MS; !holds(); await new Promise(setImmediate)) {
    assert.ok(Date.now() < end, `not ${what}`);
  }
}

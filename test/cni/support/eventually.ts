import { setTimeout as delay } from 'node:timers/promises';
import { PATIENCE_MS } from '../../support/patience.ts';

/** Waits until something holds; what it throws counts as not yet. */
export async function eventually(what: string, holds: () => unknown, ms = PATIENCE_MS): Promise<void> {
  const deadline = Date.now() + ms;
  let last: unknown = 'it did not hold';
  while (Date.now() < deadline) {
    try {
      if (await holds()) return;
    } catch (error) {
      last = error;
    }
    await delay(50);
  }
  throw new Error(`${what}: not within ${ms} ms`, { cause: last });
}

import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';

/** What the open descriptors of this process are, by number: 'net:[4026531840]', 'socket:[1234]', '/dev/null' … */
export function openDescriptors(): Map<number, string> {
  const open = new Map<number, string>();
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      open.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // The descriptor that listed the folder is closed again.
    }
  }
  return open;
}

/** Fails when there are descriptors that were not there before. */
export function assertNothingOpened(before: ReadonlyMap<number, string>): void {
  const opened = [...openDescriptors()].filter(([fd, target]) => before.get(fd) !== target);
  assert.deepEqual(opened, [], 'descriptors left open');
}

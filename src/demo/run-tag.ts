import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';

/**
 * Names what a run makes on the machine, so that a later run can tell the leftovers of a dead one from what is in use:
 * `culvert-<pid>-<start of that process>-…`. The start time makes a recycled pid harmless.
 */
export const runTag = `culvert-${process.pid}-${startOf(process.pid)}`;

/**
 * Where runs make their folders. Socket paths may have 107 bytes, and an own /run hides what lies there (see
 * inUserNamespace), so a temporary folder that is long or in there is passed over.
 */
export const scratchRoot = tmpdir().length <= 40 && !tmpdir().startsWith('/run') ? tmpdir() : '/tmp';

/** Names in a folder that belong to runs whose process is gone. Empty when there is no such folder. */
export function leftoversIn(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names.filter((name) => {
    const match = TAGGED.exec(name);
    return match !== null && startOf(Number(match[1])) !== match[2];
  });
}

const TAGGED = /^culvert-([0-9]{1,10})-([0-9a-z]{1,16})-/;

/** When a process started, in clock ticks since boot; null when there is none of that pid (proc(5), field 22 of stat). */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name, in parentheses, and may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return BigInt(fields[19]!).toString(36);
  } catch {
    return null;
  }
}

import { existsSync } from 'node:fs';
import { CulvertError, messageOf } from '../../errors.ts';
import { runChecked, runCommand } from '../../netns/run.ts';
import { MARK_MASK, RETURN_MARK, RETURN_RULE_PRIORITY, RETURN_TABLE } from './pod-rules.ts';

/**
 * Policy routing that brings the application's answers back to the agent (spec node-04 §4.4). The agent connects to the
 * application under the address of the remote client, so the answer would leave the pod; the return mark, restored from
 * the connection, sends it to a table in which every address is local.
 */
export async function addReturnRouting(netns: number, ipv6: boolean): Promise<void> {
  await Promise.all(families(ipv6).map((family) => addFamily(netns, family)));
}

/** The rule last: that it is there already is how the kernel answers when there is nothing to do. */
async function addFamily(netns: number, family: Family): Promise<void> {
  const rule = `rule add ${RULE}`;
  try {
    await addLast(netns, family, [`route replace ${ROUTE[family]}`, rule]);
  } catch (error) {
    // Asked only now: it is rare, and a pod that starts waits for each program.
    if (family === 4 || !(await isIpv6OffInLoopback(netns))) throw error;
    await addLast(netns, family, [rule]);
  }
}

/** Commands of which the last may have been done before. */
async function addLast(netns: number, family: Family, commands: readonly string[]): Promise<void> {
  try {
    await ip(netns, family, commands);
  } catch (error) {
    if (!new RegExp(`File exists\\s+Command failed -:${commands.length}\\b`).test(messageOf(error))) throw error;
  }
}

/** Without addresses on lo the kernel takes no route to it, and no answer of IPv6 has to come back. */
async function isIpv6OffInLoopback(netns: number): Promise<boolean> {
  const { stdout } = await runCommand(['cat', '/proc/sys/net/ipv6/conf/lo/disable_ipv6'], { netns });
  return stdout.trim() === '1';
}

/** Leaves nothing of what `addReturnRouting` made. What is gone already is no error. */
export async function removeReturnRouting(netns: number): Promise<void> {
  for (const family of families(true)) {
    const rules = await returnRules(netns, family);
    const { stdout } = await runCommand(['ip', FLAG[family], 'route', 'show', 'table', `${RETURN_TABLE}`], { netns });
    await ip(netns, family, [
      ...new Array<string>(rules).fill(`rule delete ${RULE}`),
      ...(stdout.includes('local default') ? [`route delete ${ROUTE[family]}`] : []),
    ]);
  }
}

/**
 * Whether a namespace has IPv6 to capture: a kernel without it refuses the rules. Asked of the kernel, since a
 * namespace has what the kernel has.
 */
export function kernelHasIpv6(): boolean {
  return existsSync('/proc/net/if_inet6');
}

type Family = 4 | 6;
const FLAG = { 4: '-4', 6: '-6' } as const;
const RULE = `fwmark ${RETURN_MARK}/${MARK_MASK} priority ${RETURN_RULE_PRIORITY} table ${RETURN_TABLE}`;
const ROUTE = {
  4: `local 0.0.0.0/0 dev lo table ${RETURN_TABLE}`,
  6: `local ::/0 dev lo table ${RETURN_TABLE}`,
} as const;

function families(ipv6: boolean): Family[] {
  return ipv6 && kernelHasIpv6() ? [4, 6] : [4];
}

/** How many of our rules there are; more than one only by the hand of somebody else. */
async function returnRules(netns: number, family: Family): Promise<number> {
  const output = await runChecked(['ip', '-json', FLAG[family], 'rule', 'show'], { netns });
  try {
    const rules = JSON.parse(output) as { priority?: number; fwmark?: string }[];
    return rules.filter(({ priority, fwmark }) => priority === RETURN_RULE_PRIORITY && fwmark === RETURN_MARK).length;
  } catch (cause) {
    throw new CulvertError('RULES_UNREADABLE', 'ip rule show printed something that is not JSON', { cause });
  }
}

async function ip(netns: number, family: Family, commands: readonly string[]): Promise<void> {
  if (commands.length === 0) return;
  await runChecked(['ip', FLAG[family], '-batch', '-'], { netns, input: `${commands.join('\n')}\n` });
}

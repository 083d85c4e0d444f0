import { NETLINK_ROUTE } from '../../../native/netlink.ts';
import { CulvertError } from '../../errors.ts';
import { kernelHasIpv6 } from '../../netns/kernel-ipv6.ts';
import { askKernel, attribute, type NetlinkRefusal, type NetlinkRequest, NLM_F, u32 } from '../../netns/netlink.ts';
import { MARK_MASK, RETURN_MARK, RETURN_RULE_PRIORITY, RETURN_TABLE } from './pod-rules.ts';

/**
 * Policy routing that brings the application's answers back to the agent (spec node-04 §4.4). The agent connects to the
 * application under the address of the remote client, so the answer would leave the pod; the return mark, restored from
 * the connection, sends it to a table in which every address is local.
 * @throws CulvertError 'ROUTING_REFUSED' with what the kernel says
 */
export async function addReturnRouting(netns: number, ipv6: boolean): Promise<void> {
  const asked = families(ipv6);
  const refused = await askKernel(
    netns,
    NETLINK_ROUTE,
    asked.flatMap((family) => [
      { type: NEW_ROUTE, flags: NLM_F.create | NLM_F.replace | NLM_F.ack, body: routeOf(family) },
      { type: NEW_RULE, flags: NLM_F.create | NLM_F.exclusive | NLM_F.ack, body: ruleOf(family) },
    ]),
  );
  for (const refusal of refused) {
    const isRule = refusal.request % 2 === 1;
    if (isRule && refusal.code === 'EEXIST') continue;
    // IPv6 is off in lo, so that no answer of IPv6 has to come back.
    if (!isRule && asked[refusal.request >> 1] === 6 && refusal.code === 'EACCES') continue;
    throw refusedRouting(isRule ? 'the rule for answers' : 'the route for answers', refusal);
  }
}

/**
 * Leaves nothing of what `addReturnRouting` made. What is gone already is no error.
 * @throws CulvertError 'ROUTING_REFUSED' with what the kernel says
 */
export async function removeReturnRouting(netns: number): Promise<void> {
  for (const family of families(true)) {
    // There is more than one rule only by the hand of somebody else.
    const removals: NetlinkRequest[] = [
      ...Array.from({ length: MAX_RULES }, () => ({ type: DELETE_RULE, flags: NLM_F.ack, body: ruleOf(family) })),
      { type: DELETE_ROUTE, flags: NLM_F.ack, body: routeOf(family) },
    ];
    for (const refusal of await askKernel(netns, NETLINK_ROUTE, removals)) {
      if (!GONE.includes(refusal.code)) throw refusedRouting('to remove the routing of answers', refusal);
    }
  }
}

type Family = 4 | 6;

function families(ipv6: boolean): Family[] {
  return ipv6 && kernelHasIpv6() ? [4, 6] : [4];
}

/** `local default dev lo table 100`, as rtmsg and attributes of linux/rtnetlink.h. */
function routeOf(family: Family): Buffer {
  const header = Buffer.of(AF[family], 0, 0, 0, RETURN_TABLE, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0);
  return Buffer.concat([header, attribute(RTA_OIF, u32(LOOPBACK_INDEX))]);
}

/** `fwmark 0x111/0xfff priority 32764 table 100`, as fib_rule_hdr and attributes of linux/fib_rules.h. */
function ruleOf(family: Family): Buffer {
  const header = Buffer.of(AF[family], 0, 0, 0, RETURN_TABLE, 0, 0, FR_ACT_TO_TABLE, 0, 0, 0, 0);
  return Buffer.concat([
    header,
    attribute(FRA_PRIORITY, u32(RETURN_RULE_PRIORITY)),
    attribute(FRA_FWMARK, u32(RETURN_MARK)),
    attribute(FRA_FWMASK, u32(MARK_MASK)),
  ]);
}

function refusedRouting(what: string, { reason, code }: NetlinkRefusal): CulvertError {
  return new CulvertError('ROUTING_REFUSED', `the kernel refused ${what}: ${reason} (${code})`);
}

const NEW_ROUTE = 24;
const DELETE_ROUTE = 25;
const NEW_RULE = 32;
const DELETE_RULE = 33;
const AF = { 4: 2, 6: 10 } as const;
const RTPROT_BOOT = 3;
const RT_SCOPE_HOST = 254;
const RTN_LOCAL = 2;
const RTA_OIF = 4;
/** The kernel makes lo first in every namespace. */
const LOOPBACK_INDEX = 1;
const FR_ACT_TO_TABLE = 1;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_FWMASK = 16;
const MAX_RULES = 4;
/** What the kernel says of a rule, and of a route, that is not there; of a table that is not there, too. */
const GONE = ['ENOENT', 'ESRCH'];

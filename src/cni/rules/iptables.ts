import { INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from '../../config/ports.ts';
import { runChecked } from '../../netns/run.ts';
import { AGENT_MARK, checkedPodRules, DNS_PORT, MARK_MASK, type PodRules, RETURN_MARK } from './pod-rules.ts';

/** The programs of one iptables variant for one IP family. */
export interface IptablesPrograms {
  /** e.g. `ip6tables-nft-restore` */
  readonly restore: string;
  readonly save: string;
}

export type IpFamily = 'ipv4' | 'ipv6';

/** Rules of one table in the words of iptables-save, so that what is there can be compared with what should be. */
export interface IptablesTable {
  readonly name: 'mangle' | 'nat' | 'raw';
  /** From a built-in chain to one of ours. */
  readonly jumps: readonly string[];
  /** Per chain of ours, in order. */
  readonly rules: readonly string[];
}

/** The rules of a pod for one family (spec node-04 §4.3, 4.5). */
export function iptablesTables(rules: PodRules, family: IpFamily): IptablesTable[] {
  const { dnsCapture, ingress, virtualInterfaces, probeIpv4, probeIpv6 } = checkedPodRules(rules);
  const loopback = family === 'ipv4' ? '127.0.0.1/32' : '::1/128';
  const probe = family === 'ipv4' ? `${probeIpv4}/32` : `${probeIpv6}/128`;
  const agentMark = masked(AGENT_MARK);
  const fromAgent = `-m mark --mark ${agentMark}`;
  const notFromAgent = `-m mark ! --mark ${agentMark}`;
  const returning = masked(RETURN_MARK);
  const mangle: IptablesTable = {
    name: 'mangle',
    jumps: JUMPS,
    rules: [
      `-A ${OUTPUT} -m connmark --mark ${returning} -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff`,
      `-A ${PREROUTING} ${fromAgent} -j CONNMARK --set-xmark ${returning}`,
    ],
  };
  const nat: IptablesTable = {
    name: 'nat',
    jumps: JUMPS,
    rules: [
      `-A ${OUTPUT} -d ${probe} -p tcp -m tcp -j ACCEPT`,
      ...(dnsCapture
        ? [
            `-A ${OUTPUT} ! -o lo -p udp ${notFromAgent} -m udp --dport 53 -j REDIRECT --to-ports ${DNS_PORT}`,
            `-A ${OUTPUT} ! -d ${loopback} -p tcp -m tcp --dport 53 ${notFromAgent} -j REDIRECT --to-ports ${DNS_PORT}`,
          ]
        : []),
      `-A ${OUTPUT} -p tcp -m mark --mark ${returning} -j ACCEPT`,
      `-A ${OUTPUT} ! -d ${loopback} -o lo -j ACCEPT`,
      `-A ${OUTPUT} ! -d ${loopback} -p tcp ${notFromAgent} -j REDIRECT --to-ports ${OUTBOUND_PORT}`,
      ...virtualInterfaces.flatMap((name) => [
        `-A ${PREROUTING} -i ${name} -p tcp -j REDIRECT --to-ports ${OUTBOUND_PORT}`,
        `-A ${PREROUTING} -i ${name} -p tcp -j RETURN`,
      ]),
      ...(ingress
        ? []
        : [
            `-A ${PREROUTING} -s ${probe} -p tcp -m tcp -j ACCEPT`,
            `-A ${PREROUTING} ! -d ${loopback} -p tcp -m tcp ! --dport ${INBOUND_HBONE_PORT} ${notFromAgent} ` +
              `-j REDIRECT --to-ports ${INBOUND_PLAINTEXT_PORT}`,
          ]),
    ],
  };
  const raw: IptablesTable = {
    name: 'raw',
    jumps: JUMPS,
    rules: [
      `-A ${OUTPUT} -p udp ${fromAgent} -m udp --dport 53 -j CT --zone 1`,
      `-A ${PREROUTING} -p udp ${notFromAgent} -m udp --sport 53 -j CT --zone 1`,
    ],
  };
  return dnsCapture ? [mangle, nat, raw] : [mangle, nat];
}

function masked(mark: number): string {
  return `0x${mark.toString(16)}/0x${MARK_MASK.toString(16)}`;
}

/**
 * Brings one family of a pod to the state that `wanted` describes; an empty list removes every rule. Returns whether
 * there was anything to do. Each table changes in one transaction, so no connection slips through between the old rules
 * and the new.
 * @throws CulvertError 'COMMAND_FAILED' with what iptables says, 'COMMAND_MISSING'
 */
export async function reconcileIptables(
  netns: number,
  programs: IptablesPrograms,
  wanted: readonly IptablesTable[],
): Promise<boolean> {
  const saved = await runChecked([programs.save], { netns });
  const script = reconcileScript(saved, wanted);
  if (script === '') return false;
  // The wait is for the lock of the legacy variant; the other takes the option and needs none.
  await runChecked([programs.restore, '--noflush', '--wait=30'], { netns, input: script });
  return true;
}

/** The input of `iptables-restore --noflush` that turns what iptables-save printed into what is wanted; '' for nothing to do. */
function reconcileScript(saved: string, wanted: readonly IptablesTable[]): string {
  const found = ownParts(saved);
  const names = new Set([...wanted.map(({ name }) => name as string), ...found.keys()]);
  return [...names].sort().map(tableScript).join('');

  function tableScript(name: string): string {
    const { chains, jumps, rules } = found.get(name) ?? NOTHING;
    const goal = wanted.find((table) => table.name === name);
    const stale = goal === undefined ? chains : chains.filter((chain) => !CHAINS.includes(chain));
    const current = goal !== undefined && sameLines(jumps, goal.jumps) && sameLines(rules, goal.rules);
    if (current && stale.length === 0) return '';
    const lines = [
      `*${name}`,
      // Declaring a chain makes it, or empties it when it is there.
      ...(goal === undefined ? [] : CHAINS.map((chain) => `:${chain} - [0:0]`)),
      ...jumps.map((jump) => jump.replace(/^-A/, '-D')),
      ...stale.map((chain) => `-F ${chain}`),
      ...stale.map((chain) => `-X ${chain}`),
      ...(goal?.rules ?? []),
      ...(goal?.jumps ?? []),
      'COMMIT',
    ];
    return `${lines.join('\n')}\n`;
  }
}

const PREROUTING = 'ISTIO_PRERT';
const OUTPUT = 'ISTIO_OUTPUT';
const CHAINS: readonly string[] = [OUTPUT, PREROUTING];
const JUMPS: readonly string[] = [`-A PREROUTING -j ${PREROUTING}`, `-A OUTPUT -j ${OUTPUT}`];

interface OwnParts {
  readonly chains: string[];
  readonly jumps: string[];
  readonly rules: string[];
}

const NOTHING: OwnParts = { chains: [], jumps: [], rules: [] };

/** What is ours in the output of iptables-save, by table: chains called ISTIO…, their rules, and rules that lead there. */
function ownParts(saved: string): Map<string, OwnParts> {
  const tables = new Map<string, OwnParts>();
  let name = '';
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) name = line.slice(1).trim();
    const chain = /^:(ISTIO\S*) /.exec(line)?.[1];
    const isRule = /^-A ISTIO/.test(line);
    const isJump = !isRule && /^-A .* -[jg] ISTIO/.test(line);
    if (chain === undefined && !isRule && !isJump) continue;
    const parts = tables.get(name) ?? { chains: [], jumps: [], rules: [] };
    tables.set(name, parts);
    if (chain !== undefined) parts.chains.push(chain);
    else (isRule ? parts.rules : parts.jumps).push(line.trimEnd());
  }
  return tables;
}

/** Chains are printed in an order of their own; within a chain the order counts. */
function sameLines(a: readonly string[], b: readonly string[]): boolean {
  const byChain = (lines: readonly string[]) =>
    Object.entries(Object.groupBy(lines, (line) => line.split(' ')[1]!))
      .map(([chain, rules]) => `${chain}\n${rules!.join('\n')}`)
      .sort()
      .join('\n');
  return byChain(a) === byChain(b);
}

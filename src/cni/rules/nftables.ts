import { INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from '../../config/ports.ts';
import {
  address,
  COUNTER,
  connectionMark,
  type IpFamily,
  interfaceName,
  jump,
  mark,
  type Operator,
  port,
  protocol,
  REPLIES,
  RESTORE_MARK,
  type Rule,
  redirect,
  setConnectionMark,
  setZone,
  verdict,
} from '../nftables/expressions.ts';
import type { Chain, Table } from '../nftables/transaction.ts';
import { AGENT_MARK, checkedPodRules, DNS_PORT, MARK_MASK, type PodRules, RETURN_MARK } from './pod-rules.ts';

/** The names of the incumbent, so that its tools and its clean-up know them. */
const NAT = 'istio-ambient-nat';
const MANGLE = 'istio-ambient-mangle';
const RAW = 'istio-ambient-raw';
export const POD_TABLES: readonly string[] = [NAT, MANGLE, RAW];

/**
 * The rules of a pod as tables of nftables (spec node-04 §4.8).
 * @throws CulvertError 'RULES_INVALID'
 */
export function podTables(rules: PodRules): Table[] {
  checkedPodRules(rules);
  return [natTable(rules), mangleTable(), ...(rules.dnsCapture ? [rawTable()] : [])];
}

const accept: Rule = [...COUNTER, ...verdict('accept')];
const to = (number: number): Rule => [...COUNTER, ...redirect(number)];
const agentMark = (operator: Operator): Rule => mark(operator, AGENT_MARK, MARK_MASK);

function natTable({ ipv6, ingress, dnsCapture, virtualInterfaces, probeIpv4, probeIpv6 }: PodRules): Table {
  /** One rule per family; the callback gets the loopback address and that of probes. */
  const each = (rule: (ip: IpFamily, loopback: string, probe: string) => Rule): Rule[] => [
    rule('ip', '127.0.0.1', probeIpv4),
    ...(ipv6 ? [rule('ip6', '::1', probeIpv6)] : []),
  ];
  const tcp = protocol('tcp');
  const prerouting = [
    ...virtualInterfaces.flatMap((name): Rule[] => [
      [...interfaceName('iifname', '==', name), ...tcp, ...to(OUTBOUND_PORT)],
      [...interfaceName('iifname', '==', name), ...tcp, ...COUNTER, ...verdict('return')],
    ]),
    ...(ingress
      ? []
      : [
          ...each((ip, _, probe) => [...tcp, ...address(ip, 'saddr', '==', probe), ...accept]),
          ...each((ip, loopback) => [
            ...address(ip, 'daddr', '!=', loopback),
            ...port('tcp', 'dport', '!=', INBOUND_HBONE_PORT),
            ...agentMark('!='),
            ...to(INBOUND_PLAINTEXT_PORT),
          ]),
        ]),
  ];
  const output = [
    ...each((ip, _, probe) => [...tcp, ...address(ip, 'daddr', '==', probe), ...accept]),
    ...(dnsCapture
      ? [
          [
            ...interfaceName('oifname', '!=', 'lo'),
            ...agentMark('!='),
            ...port('udp', 'dport', '==', 53),
            ...to(DNS_PORT),
          ],
          ...each((ip, loopback) => [
            ...address(ip, 'daddr', '!=', loopback),
            ...port('tcp', 'dport', '==', 53),
            ...agentMark('!='),
            ...to(DNS_PORT),
          ]),
        ]
      : []),
    [...tcp, ...mark('==', RETURN_MARK, MARK_MASK), ...accept],
    ...each((ip, loopback) => [
      ...interfaceName('oifname', '==', 'lo'),
      ...address(ip, 'daddr', '!=', loopback),
      ...accept,
    ]),
    ...each((ip, loopback) => [
      ...tcp,
      ...address(ip, 'daddr', '!=', loopback),
      ...agentMark('!='),
      ...to(OUTBOUND_PORT),
    ]),
  ];
  return table(NAT, { type: 'nat', priority: -100 }, { type: 'nat', priority: -100 }, prerouting, output);
}

function mangleTable(): Table {
  return table(
    MANGLE,
    { type: 'filter', priority: -150 },
    // A route hook, so that a packet whose mark has changed is routed once more.
    { type: 'route', priority: -150 },
    [[...agentMark('=='), ...COUNTER, ...setConnectionMark(~MARK_MASK, RETURN_MARK)]],
    // Only the answers of the application need the mark. On the packets of the other direction, and on those of the agent
    // itself, it would change nothing but cost another routing decision each (a seventh of sending a short message).
    [[...REPLIES, ...agentMark('!='), ...connectionMark('==', RETURN_MARK, MARK_MASK), ...COUNTER, ...RESTORE_MARK]],
  );
}

/** The agent's own DNS queries get a conntrack zone of their own: a redirected one may have the same addresses and ports. */
function rawTable(): Table {
  const hook = { type: 'filter', priority: -300 } as const;
  const ownZone = [...COUNTER, ...setZone(1)];
  return table(
    RAW,
    hook,
    hook,
    [[...port('udp', 'sport', '==', 53), ...agentMark('!='), ...ownZone]],
    [[...port('udp', 'dport', '==', 53), ...agentMark('=='), ...ownZone]],
  );
}

type Hook = Omit<NonNullable<Chain['hook']>, 'at'>;

/** Two base chains that lead to two of ours. */
function table(
  name: string,
  preroutingHook: Hook,
  outputHook: Hook,
  prerouting: readonly Rule[],
  output: readonly Rule[],
): Table {
  return {
    name,
    chains: [
      { name: 'prerouting', hook: { ...preroutingHook, at: 'prerouting' }, rules: [jump('istio-prerouting')] },
      { name: 'output', hook: { ...outputHook, at: 'output' }, rules: [jump('istio-output')] },
      { name: 'istio-prerouting', hook: null, rules: prerouting },
      { name: 'istio-output', hook: null, rules: output },
    ],
  };
}

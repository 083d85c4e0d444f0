import { INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from '../../config/ports.ts';
import { runChecked } from '../../netns/run.ts';
import { AGENT_MARK, checkedPodRules, DNS_PORT, MARK_MASK, type PodRules, RETURN_MARK } from './pod-rules.ts';

/**
 * The rules of a pod as one nftables transaction (spec node-04 §4.8): it replaces whatever an earlier one has made, so
 * applying is idempotent and there is no moment without rules.
 */
export function nftScript(rules: PodRules): string {
  checkedPodRules(rules);
  const tables = [natTable(rules), mangleTable(), ...(rules.dnsCapture ? [rawTable()] : [])];
  return `${[nftRemovalScript().trimEnd(), ...tables].join('\n')}\n`;
}

/** Removes all tables. Each is added first, which makes its removal succeed when it was not there. */
export function nftRemovalScript(): string {
  return `${TABLES.map((name) => `add table inet ${name}\ndelete table inet ${name}`).join('\n')}\n`;
}

/** @throws CulvertError 'COMMAND_FAILED' with what nft says, 'COMMAND_MISSING' */
export async function applyNft(netns: number, script: string): Promise<void> {
  await runChecked(['nft', '-f', '-'], { netns, input: script });
}

/** The names of the incumbent, so that its tools and its clean-up know them. */
const NAT = 'istio-ambient-nat';
const MANGLE = 'istio-ambient-mangle';
const RAW = 'istio-ambient-raw';
const TABLES = [NAT, MANGLE, RAW];

const FROM_AGENT = `meta mark & ${MARK_MASK} == ${AGENT_MARK}`;
const NOT_FROM_AGENT = `meta mark & ${MARK_MASK} != ${AGENT_MARK}`;

function natTable({ ipv6, ingress, dnsCapture, virtualInterfaces, probeIpv4, probeIpv6 }: PodRules): string {
  /** One line per family; the callback gets the match keyword, the loopback block and the probe's address. */
  const each = (line: (ip: 'ip' | 'ip6', loopback: string, probe: string) => string) => [
    line('ip', '127.0.0.1/32', probeIpv4),
    ...(ipv6 ? [line('ip6', '::1/128', probeIpv6)] : []),
  ];
  const prerouting = [
    ...virtualInterfaces.flatMap((name) => [
      `iifname "${name}" meta l4proto tcp counter redirect to :${OUTBOUND_PORT}`,
      `iifname "${name}" meta l4proto tcp counter return`,
    ]),
    ...(ingress ? [] : each((ip, _, probe) => `meta l4proto tcp ${ip} saddr ${probe} counter accept`)),
    ...(ingress
      ? []
      : each(
          (ip, loopback) =>
            `${ip} daddr != ${loopback} tcp dport != ${INBOUND_HBONE_PORT} ${NOT_FROM_AGENT} ` +
            `counter redirect to :${INBOUND_PLAINTEXT_PORT}`,
        )),
  ];
  const output = [
    ...each((ip, _, probe) => `meta l4proto tcp ${ip} daddr ${probe} counter accept`),
    ...(dnsCapture
      ? [
          `oifname != "lo" ${NOT_FROM_AGENT} udp dport 53 counter redirect to :${DNS_PORT}`,
          ...each(
            (ip, loopback) =>
              `${ip} daddr != ${loopback} tcp dport 53 ${NOT_FROM_AGENT} counter redirect to :${DNS_PORT}`,
          ),
        ]
      : []),
    `meta l4proto tcp meta mark & ${MARK_MASK} == ${RETURN_MARK} counter accept`,
    ...each((ip, loopback) => `oifname "lo" ${ip} daddr != ${loopback} counter accept`),
    ...each(
      (ip, loopback) =>
        `meta l4proto tcp ${ip} daddr != ${loopback} ${NOT_FROM_AGENT} counter redirect to :${OUTBOUND_PORT}`,
    ),
  ];
  return table(NAT, [
    baseChain('prerouting', 'type nat hook prerouting priority -100', 'istio-prerouting'),
    baseChain('output', 'type nat hook output priority -100', 'istio-output'),
    chain('istio-prerouting', prerouting),
    chain('istio-output', output),
  ]);
}

function mangleTable(): string {
  return table(MANGLE, [
    baseChain('prerouting', 'type filter hook prerouting priority -150', 'istio-prerouting'),
    // A route hook, so that a packet whose mark has changed is routed once more.
    baseChain('output', 'type route hook output priority -150', 'istio-output'),
    chain('istio-prerouting', [`${FROM_AGENT} counter ct mark set ct mark & 0xfffff000 | ${RETURN_MARK}`]),
    // Only the answers of the application need the mark. On the packets of the other direction, and on those of the agent
    // itself, it would change nothing but cost another routing decision each (a seventh of sending a short message).
    chain('istio-output', [
      `ct direction reply ${NOT_FROM_AGENT} ct mark & ${MARK_MASK} == ${RETURN_MARK} counter meta mark set ct mark`,
    ]),
  ]);
}

/** The agent's own DNS queries get a conntrack zone of their own: a redirected one may have the same addresses and ports. */
function rawTable(): string {
  return table(RAW, [
    baseChain('prerouting', 'type filter hook prerouting priority -300', 'istio-prerouting'),
    baseChain('output', 'type filter hook output priority -300', 'istio-output'),
    chain('istio-output', [`udp dport 53 ${FROM_AGENT} counter ct zone set 1`]),
    chain('istio-prerouting', [`udp sport 53 ${NOT_FROM_AGENT} counter ct zone set 1`]),
  ]);
}

function table(name: string, chains: readonly string[]): string {
  return `table inet ${name} {\n${chains.join('\n')}\n}`;
}

function baseChain(name: string, hook: string, target: string): string {
  return `  chain ${name} {\n    ${hook}; policy accept;\n    jump ${target}\n  }`;
}

function chain(name: string, rules: readonly string[]): string {
  return `  chain ${name} {\n${rules.map((rule) => `    ${rule}\n`).join('')}  }`;
}

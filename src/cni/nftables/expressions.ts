/**
 * Matches and statements of nftables rules, in the form that the kernel takes (linux/netfilter/nf_tables.h): each is a few
 * expressions that load into a register, compare, or act. `nft list ruleset` shows them in the words of the comments.
 */
import { CulvertError } from '../../errors.ts';
import { parseIp } from '../../netns/address.ts';
import { attribute, be32, textAttribute, u32 } from '../../netns/netlink.ts';

/** Encoded expressions, in order. */
export type Rule = readonly Buffer[];

export type IpFamily = 'ip' | 'ip6';
export type Operator = '==' | '!=';

/** NFT_REG_1: 16 bytes, enough for everything here. */
const REGISTER = 1;
const NETWORK = 1;
const TRANSPORT = 2;
const META = { mark: 3, iifname: 6, oifname: 7, skuid: 10, nfproto: 15, l4proto: 16 } as const;
const CT = { direction: 1, mark: 3, zone: 17 } as const;
const NFPROTO = { ip: 2, ip6: 10 } as const;
const PROTOCOL = { tcp: 6, udp: 17 } as const;
const VERDICT = { accept: 1, jump: -3, return: -5 } as const;
/** Where the addresses are in the header of the network layer. */
const OFFSET = { ip: { saddr: 12, daddr: 16 }, ip6: { saddr: 8, daddr: 24 } } as const;
const IFNAMSIZ = 16;
const NAT_RANGE_PORTS = 2;
const NAT_SOURCE = 0;

/** `meta l4proto tcp` */
export function protocol(name: 'tcp' | 'udp'): Rule {
  return [meta(META.l4proto), compare('==', Buffer.of(PROTOCOL[name]))];
}

/** `ip saddr != 10.0.0.1`. @throws CulvertError 'RULES_INVALID' for what is no address of the family */
export function address(family: IpFamily, which: 'saddr' | 'daddr', operator: Operator, ip: string): Rule {
  return [...loadAddress(family, which), compare(operator, ipBytes(family, ip))];
}

/** `ip daddr @set` */
export function addressIn(family: IpFamily, which: 'saddr' | 'daddr', set: string): Rule {
  return [...loadAddress(family, which), expression('lookup', [textAttribute(1, set), attribute(2, be32(REGISTER))])];
}

/** `tcp dport 53`, which implies the protocol. */
export function port(name: 'tcp' | 'udp', which: 'sport' | 'dport', operator: Operator, number: number): Rule {
  return [...protocol(name), payload(TRANSPORT, which === 'sport' ? 0 : 2, 2), compare(operator, be16(number))];
}

/** `meta mark & mask == value` */
export function mark(operator: Operator, value: number, mask: number): Rule {
  return [meta(META.mark), maskBits(mask, 0), compare(operator, u32(value))];
}

/** `ct mark & mask == value` */
export function connectionMark(operator: Operator, value: number, mask: number): Rule {
  return [ct(CT.mark), maskBits(mask, 0), compare(operator, u32(value))];
}

/** `ct direction reply` */
export const REPLIES: Rule = [ct(CT.direction), compare('==', Buffer.of(1))];

/** `iifname "eth0"` */
export function interfaceName(which: 'iifname' | 'oifname', operator: Operator, name: string): Rule {
  const padded = Buffer.alloc(IFNAMSIZ);
  padded.write(name, 'latin1');
  return [meta(META[which]), compare(operator, padded)];
}

/** `meta skuid 0` */
export function socketUser(uid: number): Rule {
  return [meta(META.skuid), compare('==', u32(uid))];
}

/** `counter` */
export const COUNTER: Rule = [expression('counter', [])];

/** `accept`, `return` */
export function verdict(name: 'accept' | 'return'): Rule {
  return [immediateVerdict([attribute(1, be32(VERDICT[name]))])];
}

/** `jump chain` */
export function jump(chain: string): Rule {
  return [immediateVerdict([attribute(1, be32(VERDICT.jump)), textAttribute(2, chain)])];
}

/** `redirect to :port` */
export function redirect(number: number): Rule {
  return [
    immediate(be16(number)),
    expression('redir', [attribute(1, be32(REGISTER)), attribute(3, be32(NAT_RANGE_PORTS))]),
  ];
}

/** `snat ip to 10.0.0.1`. @throws CulvertError 'RULES_INVALID' */
export function sourceNat(family: IpFamily, ip: string): Rule {
  return [
    immediate(ipBytes(family, ip)),
    expression('nat', [
      attribute(1, be32(NAT_SOURCE)),
      attribute(2, be32(NFPROTO[family])),
      attribute(3, be32(REGISTER)),
    ]),
  ];
}

/** `ct mark set ct mark & mask | bits` */
export function setConnectionMark(mask: number, bits: number): Rule {
  return [
    ct(CT.mark),
    maskBits(mask, bits),
    expression('ct', [attribute(2, be32(CT.mark)), attribute(4, be32(REGISTER))]),
  ];
}

/** `meta mark set ct mark` */
export const RESTORE_MARK: Rule = [
  ct(CT.mark),
  expression('meta', [attribute(2, be32(META.mark)), attribute(3, be32(REGISTER))]),
];

/** `ct zone set number`, 0..65535 */
export function setZone(number: number): Rule {
  const value = Buffer.alloc(2);
  value.writeUInt16LE(number);
  return [immediate(value), expression('ct', [attribute(2, be32(CT.zone)), attribute(4, be32(REGISTER))])];
}

/** The bytes of an address, in network order. @throws CulvertError 'RULES_INVALID' */
export function ipBytes(family: IpFamily, ip: string): Buffer {
  const parsed = parseIp(ip);
  if (parsed?.family !== (family === 'ip' ? 4 : 6)) {
    throw new CulvertError('RULES_INVALID', `not an address of ${family}: ${JSON.stringify(ip)}`);
  }
  const words = Buffer.concat(parsed.words.map(be32));
  return family === 'ip' ? words.subarray(0, 4) : words;
}

/** `ip` or `ip6` first, as the table is of both families. */
function loadAddress(family: IpFamily, which: 'saddr' | 'daddr'): Rule {
  return [
    meta(META.nfproto),
    compare('==', Buffer.of(NFPROTO[family])),
    payload(NETWORK, OFFSET[family][which], family === 'ip' ? 4 : 16),
  ];
}

function expression(name: string, attributes: readonly Buffer[]): Buffer {
  return attribute(1, [textAttribute(1, name), attribute(2, attributes)]);
}

function meta(key: number): Buffer {
  return expression('meta', [attribute(1, be32(REGISTER)), attribute(2, be32(key))]);
}

function ct(key: number): Buffer {
  return expression('ct', [attribute(1, be32(REGISTER)), attribute(2, be32(key))]);
}

function payload(base: number, offset: number, length: number): Buffer {
  return expression('payload', [
    attribute(1, be32(REGISTER)),
    attribute(2, be32(base)),
    attribute(3, be32(offset)),
    attribute(4, be32(length)),
  ]);
}

function compare(operator: Operator, value: Buffer): Buffer {
  return expression('cmp', [
    attribute(1, be32(REGISTER)),
    attribute(2, be32(operator === '==' ? 0 : 1)),
    attribute(3, [attribute(1, value)]),
  ]);
}

/** `& mask | bits`: the kernel has exclusive or, which is the same where the mask has zeros. */
function maskBits(mask: number, bits: number): Buffer {
  return expression('bitwise', [
    attribute(1, be32(REGISTER)),
    attribute(2, be32(REGISTER)),
    attribute(3, be32(4)),
    attribute(4, [attribute(1, u32(mask))]),
    attribute(5, [attribute(1, u32(bits))]),
  ]);
}

function immediate(value: Buffer): Buffer {
  return expression('immediate', [attribute(1, be32(REGISTER)), attribute(2, [attribute(1, value)])]);
}

function immediateVerdict(parts: readonly Buffer[]): Buffer {
  return expression('immediate', [attribute(1, be32(0)), attribute(2, [attribute(2, parts)])]);
}

function be16(value: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(value);
  return out;
}

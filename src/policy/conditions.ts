/**
 * The twelve fields of a match, reduced to one notion: a condition is a kind and a text, and holds for a connection or
 * not. A match wants one condition of every field it names, and none of every `not…` field.
 */
import { type IpWords, maskTo, parseCidr } from '../netns/address.ts';
import type { Facts } from './facts.ts';
import type { PolicyMatch, ServiceAccountMatch, StringMatch } from './types.ts';

export interface Condition {
  readonly kind: number;
  /** What is compared, as UTF-16 units; numbers are units too. */
  readonly text: string;
  /** Units that the fact must have (a prefix, a suffix) or leading bits (a block); 0 where the whole fact is compared. */
  readonly length: number;
}

/** What each kind compares with. The four ways of comparing text follow each other. */
export const Kind = {
  PRINCIPAL: 0,
  NAMESPACE: 4,
  ACCOUNT: 8,
  PORT: 9,
  SOURCE_IPV4: 10,
  SOURCE_IPV6: 11,
  DESTINATION_IPV4: 12,
  DESTINATION_IPV6: 13,
} as const;

const EXACT = 0;
const PREFIX = 1;
const SUFFIX = 2;
const PRESENCE = 3;

/** One field of a match, and its opposite. */
export interface MatchField {
  readonly wanted: keyof PolicyMatch;
  readonly unwanted: keyof PolicyMatch;
  /** Null for a value that means nothing. */
  readonly condition: (value: never) => Condition | null;
}

export const FIELDS: readonly MatchField[] = [
  field('namespaces', 'notNamespaces', textCondition(Kind.NAMESPACE)),
  field('serviceAccounts', 'notServiceAccounts', accountCondition),
  field('principals', 'notPrincipals', textCondition(Kind.PRINCIPAL)),
  field('sourceIps', 'notSourceIps', blockCondition(Kind.SOURCE_IPV4, Kind.SOURCE_IPV6)),
  field('destinationIps', 'notDestinationIps', blockCondition(Kind.DESTINATION_IPV4, Kind.DESTINATION_IPV6)),
  field('destinationPorts', 'notDestinationPorts', portCondition),
];

/**
 * The text that a condition of this kind and length must have to hold for the connection; null when none can hold.
 * Every condition that holds is found by asking for each kind and length that occurs.
 */
export function textThatHolds(kind: number, length: number, facts: Facts): string | null {
  switch (kind) {
    case Kind.ACCOUNT:
      return facts.serviceAccount === null ? null : accountText(facts.namespace, facts.serviceAccount);
    case Kind.PORT:
      return String.fromCharCode(facts.port);
    case Kind.SOURCE_IPV4:
      return blockText(facts.source, 4, length);
    case Kind.SOURCE_IPV6:
      return blockText(facts.source, 6, length);
    case Kind.DESTINATION_IPV4:
      return blockText(facts.destination, 4, length);
    case Kind.DESTINATION_IPV6:
      return blockText(facts.destination, 6, length);
  }
  const text = kind < Kind.NAMESPACE ? facts.principal : facts.namespace;
  if (text === null || text.length < length) return null;
  switch (kind % Kind.NAMESPACE) {
    case EXACT:
      return text;
    case PREFIX:
      return text.slice(0, length);
    case SUFFIX:
      return text.slice(text.length - length);
    default:
      return text === '' ? null : '';
  }
}

function field<Wanted extends keyof PolicyMatch>(
  wanted: Wanted,
  unwanted: keyof PolicyMatch,
  condition: (value: PolicyMatch[Wanted][number]) => Condition | null,
): MatchField {
  return { wanted, unwanted, condition };
}

function textCondition(base: number): (value: StringMatch) => Condition | null {
  return (value) => {
    const entries = Object.entries(value ?? {});
    if (entries.length !== 1) return null;
    const [way, text] = entries[0]!;
    if (way === 'Presence') return { kind: base + PRESENCE, text: '', length: 0 };
    if (typeof text !== 'string') return null;
    if (way === 'Exact') return { kind: base + EXACT, text, length: 0 };
    if (way === 'Prefix') return { kind: base + PREFIX, text, length: text.length };
    return way === 'Suffix' ? { kind: base + SUFFIX, text, length: text.length } : null;
  };
}

function accountCondition(value: ServiceAccountMatch): Condition | null {
  const { namespace, serviceAccount } = value ?? {};
  if (typeof namespace !== 'string' || typeof serviceAccount !== 'string') return null;
  return { kind: Kind.ACCOUNT, text: accountText(namespace, serviceAccount), length: 0 };
}

/** No two accounts have the same text, whatever characters they consist of. */
function accountText(namespace: string, serviceAccount: string): string {
  return `${namespace.length}:${namespace}${serviceAccount}`;
}

/** A port beyond 65535 is not folded into the range, as the incumbent does: it would match some other port. */
function portCondition(port: number): Condition | null {
  if (!Number.isInteger(port) || port < 0 || port > 65535) return null;
  return { kind: Kind.PORT, text: String.fromCharCode(port), length: 0 };
}

function blockCondition(ipv4: number, ipv6: number): (value: string) => Condition | null {
  return (value) => {
    const block = typeof value === 'string' ? parseCidr(value) : null;
    if (block === null) return null;
    const { family, length } = block;
    return { kind: family === 4 ? ipv4 : ipv6, text: blockText(block, family, length)!, length };
  };
}

/** The block of that length that holds the address; null for an address of the other family. */
function blockText(ip: IpWords, family: 4 | 6, length: number): string | null {
  if (ip.family !== family) return null;
  const [a, b, c, d] = maskTo(ip, length).words;
  if (family === 4) return String.fromCharCode(length, a >>> 16, a & 0xffff);
  return String.fromCharCode(
    length,
    a >>> 16,
    a & 0xffff,
    b >>> 16,
    b & 0xffff,
    c >>> 16,
    c & 0xffff,
    d >>> 16,
    d & 0xffff,
  );
}

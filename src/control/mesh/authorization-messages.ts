/** What `istio.security.Authorization` says (spec §9.7), and its bytes. */
import { formatIp, isIpv4, parseIp } from '../../netns/address.ts';
import { BYTES, tag } from '../../xds/wire.ts';
import {
  encoded,
  type Writer,
  writeFlag,
  writeIp,
  writeMessage,
  writeNumber,
  writeNumbers,
  writeText,
} from './encoding.ts';

export interface AuthorizationMessage {
  readonly name: string;
  readonly namespace: string;
  readonly scope: 'global' | 'namespace' | 'workload';
  readonly action: 'ALLOW' | 'DENY';
  /** groups OR → clauses AND → matches OR → fields AND → values OR */
  readonly groups: readonly Group[];
  readonly isDryRun: boolean;
}

export type Group = readonly Clause[];
export type Clause = readonly Match[];
/** A field that is left out asks nothing. A match without any never matches. */
export type Match = Readonly<Partial<Record<TextField, readonly string[]> & Record<PortField, readonly number[]>>>;
export type MatchField = keyof Match;
type TextField = StringField | BlockField | AccountField;
type StringField = keyof typeof STRINGS;
type BlockField = keyof typeof BLOCKS;
type AccountField = keyof typeof ACCOUNTS;
type PortField = keyof typeof PORTS;

/** Texts with wildcards. */
const STRINGS = { namespaces: 1, notNamespaces: 2, principals: 3, notPrincipals: 4 } as const;
/** `ip` or `ip/length` */
const BLOCKS = { sourceIps: 5, notSourceIps: 6, destinationIps: 7, notDestinationIps: 8 } as const;
const PORTS = { destinationPorts: 9, notDestinationPorts: 10 } as const;
/** `namespace/name` */
const ACCOUNTS = { serviceAccounts: 11, notServiceAccounts: 12 } as const;

const SCOPES = { global: 0, namespace: 1, workload: 2 } as const;

export function encodeAuthorization(policy: AuthorizationMessage): Uint8Array {
  return encoded((writer) => {
    writeText(writer, 1, policy.name);
    writeText(writer, 2, policy.namespace);
    writeNumber(writer, 3, SCOPES[policy.scope]);
    writeNumber(writer, 4, policy.action === 'DENY' ? 1 : 0);
    for (const group of policy.groups) writeMessage(writer, 5, () => writeGroup(writer, group));
    writeFlag(writer, 6, policy.isDryRun);
  });
}

function writeGroup(writer: Writer, group: Group): void {
  for (const clause of group) {
    writeMessage(writer, 1, () => {
      for (const match of clause) writeMessage(writer, 2, () => writeMatch(writer, match));
    });
  }
}

/** In the order of the numbers of the fields. */
function writeMatch(writer: Writer, match: Match): void {
  for (const [name, field] of Object.entries(STRINGS) as [StringField, number][])
    for (const text of match[name] ?? []) writeMessage(writer, field, () => writeString(writer, text));
  for (const [name, field] of Object.entries(BLOCKS) as [BlockField, number][])
    for (const block of match[name] ?? []) writeMessage(writer, field, () => writeBlock(writer, block));
  for (const [name, field] of Object.entries(PORTS) as [PortField, number][])
    writeNumbers(writer, field, match[name] ?? []);
  for (const [name, field] of Object.entries(ACCOUNTS) as [AccountField, number][])
    for (const account of match[name] ?? []) writeMessage(writer, field, () => writeAccount(writer, account));
}

/** One star at either end; another one, and any inside, stands for itself. */
function writeString(writer: Writer, text: string): void {
  if (text === '*') writeMessage(writer, 4, () => {});
  // Written even when nothing is left: which of the kinds it is says what it matches.
  else if (text.startsWith('*')) writer.uint32(tag(3, BYTES)).string(text.slice(1));
  else if (text.endsWith('*')) writer.uint32(tag(2, BYTES)).string(text.slice(0, -1));
  else writer.uint32(tag(1, BYTES)).string(text);
}

/** Host bits are kept, as istiod keeps them: whoever reads it masks. */
function writeBlock(writer: Writer, block: string): void {
  const [text, length] = block.split('/') as [string, string?];
  const ip = formatIp(parseIp(text)!);
  const bits = isIpv4(ip) ? 32 : 128;
  writeIp(writer, 1, ip);
  // The length of an IPv4-mapped block counts the 96 bits of the mapping.
  const mapped = bits === 32 && text.includes(':') ? 96 : 0;
  writeNumber(writer, 2, length === undefined ? bits : Number(length) - mapped);
}

function writeAccount(writer: Writer, account: string): void {
  const slash = account.indexOf('/');
  writeText(writer, 1, account.slice(0, slash));
  writeText(writer, 2, account.slice(slash + 1));
}

import { NETLINK_NETFILTER } from '../../../native/netlink.ts';
import { CulvertError } from '../../errors.ts';
import {
  askKernel,
  attribute,
  be32,
  type NetlinkRefusal,
  type NetlinkRequest,
  NLM_F,
  textAttribute,
} from '../../netns/netlink.ts';
import { type IpFamily, ipBytes, type Rule } from './expressions.ts';

/** A table of the family `inet`, as it should be. */
export interface Table {
  readonly name: string;
  readonly sets?: readonly AddressSet[];
  readonly chains: readonly Chain[];
}

export interface Chain {
  readonly name: string;
  /** Of a base chain; null for one that others jump to. */
  readonly hook: {
    readonly type: 'nat' | 'filter' | 'route';
    readonly at: keyof typeof HOOKS;
    readonly priority: number;
  } | null;
  readonly rules: readonly Rule[];
}

export interface AddressSet {
  readonly name: string;
  readonly family: IpFamily;
  readonly elements: readonly { readonly ip: string; readonly comment: string }[];
}

/**
 * Makes tables what they should be, in one transaction: whatever was in those of `names` goes, those of `tables` come. So
 * it is harmless when repeated, and there is no moment without rules.
 * @param netns a descriptor that stays open meanwhile; null for the namespace of the process
 * @throws CulvertError 'NFTABLES_REFUSED' with what the kernel says, 'NETLINK_FAILED'; nothing has changed then
 */
export async function replaceTables(
  netns: number | null,
  names: readonly string[],
  tables: readonly Table[],
): Promise<void> {
  // Only what is there is removed: for what was removed, the kernel waits for its processors.
  const removals = (await presentTables(netns, names)).map(removal);
  const parts = [...removals, ...tables.flatMap(tableRequests)];
  if (parts.length > 0) await send(netns, parts, [batch(BATCH_END)]);
}

/**
 * Asks the kernel whether it could have these tables, without making them.
 * @throws CulvertError 'NFTABLES_REFUSED' with what it lacks, 'NETLINK_FAILED'
 */
export async function checkTables(tables: readonly Table[]): Promise<void> {
  // A transaction without its end is looked at and then dropped. On the node, one of the names may be taken.
  const renamed = tables.map((table) => ({ ...table, name: `${table.name}-check` }));
  await send(null, renamed.flatMap(tableRequests), []);
}

/**
 * Adds to a set that is there.
 * @throws CulvertError 'NFTABLES_REFUSED' with what the kernel says, 'NETLINK_FAILED'; nothing has changed then
 */
export async function addToSets(netns: number | null, table: string, sets: readonly AddressSet[]): Promise<void> {
  await send(
    netns,
    sets.flatMap((set) => elementRequests(table, set, null)),
    [batch(BATCH_END)],
  );
}

/** The last of the parts asks for an answer: whatever is refused is answered in any case. */
async function send(
  netns: number | null,
  parts: readonly NetlinkRequest[],
  end: readonly NetlinkRequest[],
): Promise<void> {
  const requests = [
    batch(BATCH_BEGIN),
    ...parts.map((part, index) => (index === parts.length - 1 ? { ...part, flags: part.flags | NLM_F.ack } : part)),
    ...end,
  ];
  const [refused] = await askKernel(netns, NETLINK_NETFILTER, requests);
  if (refused === undefined) return;
  throw refusal(requests, refused);
}

/**
 * Those of the names that are taken. Each is asked for by itself: a list would be as long as whoever is in the pod likes,
 * and might miss one while others come and go.
 */
async function presentTables(netns: number | null, names: readonly string[]): Promise<string[]> {
  const requests = names.map((name) => request(GET_TABLE, NLM_F.ack, [textAttribute(1, name)]));
  const refusals = await askKernel(netns, NETLINK_NETFILTER, requests);
  const unclear = refusals.find(({ code }) => code !== 'ENOENT');
  if (unclear) throw refusal(requests, unclear);
  return names.filter((_, index) => !refusals.some((refused) => refused.request === index));
}

function refusal(requests: readonly NetlinkRequest[], refused: NetlinkRefusal): CulvertError {
  const what = NAMES[requests[refused.request]!.type & 0xff] ?? 'the transaction';
  return new CulvertError(
    'NFTABLES_REFUSED',
    `nftables: the kernel refused ${what}: ${refused.reason} (${refused.code})`,
  );
}

function removal(name: string): NetlinkRequest {
  return request(DELETE_TABLE, 0, [textAttribute(1, name)]);
}

function tableRequests({ name, sets = [], chains }: Table): NetlinkRequest[] {
  return [
    // One that somebody has made since the look would have other rules beside these.
    request(NEW_TABLE, NLM_F.create | NLM_F.exclusive, [textAttribute(1, name)]),
    ...sets.flatMap((set, index) => setRequests(name, set, index + 1)),
    ...chains.map((chain) => chainRequest(name, chain)),
    ...chains.flatMap((chain) =>
      chain.rules.map((rule) =>
        request(NEW_RULE, NLM_F.create | NLM_F.append, [
          textAttribute(1, name),
          textAttribute(2, chain.name),
          attribute(4, rule),
        ]),
      ),
    ),
  ];
}

function chainRequest(table: string, { name, hook }: Chain): NetlinkRequest {
  const base =
    hook === null
      ? []
      : [
          attribute(4, [attribute(1, be32(HOOKS[hook.at])), attribute(2, be32(hook.priority))]),
          attribute(5, be32(ACCEPT)),
          textAttribute(7, hook.type),
        ];
  return request(NEW_CHAIN, NLM_F.create, [textAttribute(1, table), textAttribute(3, name), ...base]);
}

function setRequests(table: string, set: AddressSet, id: number): NetlinkRequest[] {
  const key = KEY[set.family];
  return [
    request(NEW_SET, NLM_F.create, [
      textAttribute(1, table),
      textAttribute(2, set.name),
      attribute(3, be32(0)),
      attribute(4, be32(key.type)),
      attribute(5, be32(key.bytes)),
      attribute(10, be32(id)),
    ]),
    ...elementRequests(table, set, id),
  ];
}

/** @param id of a set that the same transaction makes; null for one that is there */
function elementRequests(table: string, { name, family, elements }: AddressSet, id: number | null): NetlinkRequest[] {
  const requests: NetlinkRequest[] = [];
  for (let at = 0; at < elements.length; at += ELEMENTS_PER_REQUEST) {
    const encoded = elements
      .slice(at, at + ELEMENTS_PER_REQUEST)
      .map(({ ip, comment }) =>
        attribute(LIST_ELEMENT, [
          attribute(1, [attribute(1, ipBytes(family, ip))]),
          attribute(6, commentBytes(comment)),
        ]),
      );
    requests.push(
      request(NEW_SET_ELEMENT, NLM_F.create, [
        textAttribute(1, table),
        textAttribute(2, name),
        ...(id === null ? [] : [attribute(4, be32(id))]),
        attribute(3, encoded),
      ]),
    );
  }
  return requests;
}

/** As libnftnl writes it: type, length, text with the NUL at its end. */
function commentBytes(comment: string): Buffer {
  const text = Buffer.from(`${comment.slice(0, MAX_COMMENT)}\0`, 'latin1');
  return Buffer.concat([Buffer.of(COMMENT, text.length), text]);
}

function request(type: number, flags: number, attributes: readonly Buffer[]): NetlinkRequest {
  return {
    type: typeOf(type),
    flags,
    body: Buffer.concat([FAMILY, ...attributes]),
  };
}

function typeOf(type: number): number {
  return (NFTABLES << 8) | type;
}

function batch(type: number): NetlinkRequest {
  return { type, flags: 0, body: Buffer.of(0, 0, 0, NFTABLES) };
}

const NFTABLES = 10;
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const NEW_TABLE = 0;
const GET_TABLE = 1;
const DELETE_TABLE = 2;
const NEW_CHAIN = 3;
const NEW_RULE = 6;
const NEW_SET = 9;
const NEW_SET_ELEMENT = 12;
const NAMES: Readonly<Record<number, string>> = {
  [NEW_TABLE]: 'a table',
  [GET_TABLE]: 'to look for a table',
  [DELETE_TABLE]: 'the removal of a table',
  [NEW_CHAIN]: 'a chain',
  [NEW_RULE]: 'a rule',
  [NEW_SET]: 'a set',
  [NEW_SET_ELEMENT]: 'elements of a set',
};
/** nfgenmsg of the family inet. */
const FAMILY = Buffer.of(1, 0, 0, 0);
const HOOKS = { prerouting: 0, output: 3, postrouting: 4 } as const;
const ACCEPT = 1;
const LIST_ELEMENT = 1;
/** Types of set keys as nft numbers them. */
const KEY = { ip: { type: 7, bytes: 4 }, ip6: { type: 8, bytes: 16 } } as const;
/** A list is one attribute, whose length has 16 bits. */
const ELEMENTS_PER_REQUEST = 200;
const COMMENT = 0;
const MAX_COMMENT = 128;

/**
 * Requests to the kernel of one network namespace by netlink (RFC 3549): what `ip` and `nft` do, without starting a
 * program. Headers are in the byte order of the machine, which is little-endian wherever this runs.
 */
import { getSystemErrorName } from 'node:util';
import { netlinkExchange } from '../../native/netlink.ts';
import { OWN_NETNS } from '../../native/netns.ts';
import { CulvertError, messageOf } from '../errors.ts';

export interface NetlinkRequest {
  /** Number of the message in its protocol. */
  readonly type: number;
  /** NLM_F_… beside REQUEST, which is always set. */
  readonly flags: number;
  /** The family's header, and attributes. */
  readonly body: Uint8Array;
}

/** What the kernel refused. */
export interface NetlinkRefusal {
  /** Which of the requests, from 0. */
  readonly request: number;
  /** Name of the errno. */
  readonly code: string;
  /** In words of the kernel, where it has any. */
  readonly reason: string;
}

/**
 * Sends requests together and resolves with those that were refused; a request with `NLM_F.ack` is told to have been done.
 * @param netns a descriptor that need not stay open; null for the namespace of the process
 * @throws CulvertError 'NETLINK_FAILED' when the kernel cannot be asked
 */
export async function askKernel(
  netns: number | null,
  protocol: number,
  requests: readonly NetlinkRequest[],
): Promise<NetlinkRefusal[]> {
  // The kernel refuses a packet without anything.
  if (requests.length === 0) return [];
  const statuses = (await exchange(netns, protocol, requests)).flatMap((answer) => statusIn(answer) ?? []);
  const refused = statuses.flatMap(({ request, code, reason }) => (code === null ? [] : [{ request, code, reason }]));
  const unanswered = requests.findIndex(
    ({ flags }, index) => flags & NLM_F.ack && !statuses.some(({ request }) => request === index),
  );
  if (unanswered >= 0 && refused.length === 0) {
    throw new CulvertError('NETLINK_FAILED', `netlink: the kernel has not answered request ${unanswered}`);
  }
  return refused;
}

/** Flags of a request, of linux/netlink.h. */
export const NLM_F = { ack: 0x4, replace: 0x100, exclusive: 0x200, create: 0x400, append: 0x800 } as const;

/** An attribute; a list of them nests. */
export function attribute(type: number, value: Uint8Array | readonly Uint8Array[]): Buffer {
  const nested = !(value instanceof Uint8Array);
  const data = nested ? Buffer.concat(value) : value;
  const length = ATTRIBUTE_HEADER + data.length;
  if (length > MAX_ATTRIBUTE) throw new CulvertError('NETLINK_FAILED', `netlink: an attribute of ${length} bytes`);
  const out = Buffer.alloc(aligned(length));
  out.writeUInt16LE(length, 0);
  out.writeUInt16LE(nested ? type | NESTED : type, 2);
  out.set(data, ATTRIBUTE_HEADER);
  return out;
}

/** Text with the NUL at its end. */
export function textAttribute(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`));
}

/** 32 bits in the byte order of the machine. */
export function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value >>> 0);
  return out;
}

/** 32 bits in network byte order. */
export function be32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value >>> 0);
  return out;
}

const MESSAGE_HEADER = 16;
const ATTRIBUTE_HEADER = 4;
const MAX_ATTRIBUTE = 0xffff;
const NESTED = 0x8000;
const NLM_F_REQUEST = 0x1;
const NLMSG_ERROR = 2;
/** In answers: attributes follow the header of the request that the answer is about. */
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;

/** Requests are told apart by their sequence number, which is their place. */
function message({ type, flags, body }: NetlinkRequest, sequence: number): Buffer {
  const out = Buffer.alloc(aligned(MESSAGE_HEADER + body.length));
  out.writeUInt32LE(MESSAGE_HEADER + body.length, 0);
  out.writeUInt16LE(type, 4);
  out.writeUInt16LE(flags | NLM_F_REQUEST, 6);
  out.writeUInt32LE(sequence, 8);
  out.set(body, MESSAGE_HEADER);
  return out;
}

interface Answer {
  readonly type: number;
  readonly flags: number;
  /** Of which request it is, by its place. */
  readonly request: number;
  readonly body: Buffer;
}

async function exchange(
  netns: number | null,
  protocol: number,
  requests: readonly NetlinkRequest[],
): Promise<Answer[]> {
  let bytes: Buffer;
  try {
    bytes = await netlinkExchange(netns ?? OWN_NETNS, protocol, Buffer.concat(requests.map(message)));
  } catch (cause) {
    throw new CulvertError('NETLINK_FAILED', messageOf(cause), { cause });
  }
  const answers: Answer[] = [];
  for (let at = 0; at + MESSAGE_HEADER <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (length < MESSAGE_HEADER || at + length > bytes.length) break;
    answers.push({
      type: bytes.readUInt16LE(at + 4),
      flags: bytes.readUInt16LE(at + 6),
      request: bytes.readUInt32LE(at + 8),
      body: bytes.subarray(at + MESSAGE_HEADER, at + length),
    });
    at += aligned(length);
  }
  return answers;
}

/** What became of a request; `code` is null when it was done. Null for an answer that is no status. */
function statusIn({
  type,
  flags,
  request,
  body,
}: Answer): (Omit<NetlinkRefusal, 'code'> & { code: string | null }) | null {
  if (type !== NLMSG_ERROR) return null;
  const errno = body.readInt32LE(0);
  const code = errno === 0 ? null : getSystemErrorName(errno);
  // The errno and the header of the request come before; the request itself was asked to be left out.
  const words = flags & NLM_F_ACK_TLVS ? findAttribute(body.subarray(4 + MESSAGE_HEADER), NLMSGERR_ATTR_MSG) : null;
  return { request, code, reason: words === null ? (code ?? '') : textOf(words) };
}

/** The value of the first attribute of a type, or null. */
function findAttribute(attributes: Buffer, type: number): Buffer | null {
  for (let at = 0; at + ATTRIBUTE_HEADER <= attributes.length; ) {
    const length = attributes.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER) return null;
    if ((attributes.readUInt16LE(at + 2) & ~NESTED) === type)
      return attributes.subarray(at + ATTRIBUTE_HEADER, at + length);
    at += aligned(length);
  }
  return null;
}

/** The text of a value, without the NUL at its end. */
function textOf(value: Buffer): string {
  return value.toString('utf8').replace(/\0.*$/s, '');
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

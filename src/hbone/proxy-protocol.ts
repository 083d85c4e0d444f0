import { CulvertError } from '../errors.ts';
import { parseIp, type SocketAddress } from '../netns/address.ts';

/**
 * The PROXY protocol version 2 header that precedes a stream for an application tunnel: command PROXY, TCP, and the
 * source's SPIFFE id in TLV 0xD0 unless `identity` is null. A pair of both families is written as IPv6, the IPv4 side
 * as an IPv4-mapped address. Throws PROXY_HEADER_INVALID for an address that is none or an id beyond what fits.
 */
export function buildProxyHeader(
  source: SocketAddress,
  destination: SocketAddress,
  identity: string | null,
): Uint8Array {
  const from = addressWords(source);
  const to = addressWords(destination);
  const ipv4 = from.family === 4 && to.family === 4;
  const addressesLength = ipv4 ? 12 : 36;
  const identityLength = identity === null ? 0 : Buffer.byteLength(identity);
  const bodyLength = addressesLength + (identity === null ? 0 : TLV_HEADER_SIZE + identityLength);
  if (bodyLength > 0xffff) {
    throw new CulvertError('PROXY_HEADER_INVALID', `identity of ${identityLength} octets does not fit a PROXY header`);
  }
  const header = Buffer.alloc(HEADER_SIZE + bodyLength);
  header.set(SIGNATURE);
  header[12] = VERSION_2_COMMAND_PROXY;
  header[13] = ipv4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
  header.writeUInt16BE(bodyLength, 14);
  let at = HEADER_SIZE;
  for (const { family, words } of [from, to]) {
    const written = ipv4 ? words.slice(0, 1) : family === 4 ? [0, 0, 0xffff, words[0]] : words;
    for (const word of written) at = header.writeUInt32BE(word, at);
  }
  at = header.writeUInt16BE(source.port, at);
  at = header.writeUInt16BE(destination.port, at);
  if (identity !== null) {
    at = header.writeUInt8(TLV_SOURCE_IDENTITY, at);
    at = header.writeUInt16BE(identityLength, at);
    header.write(identity, at, 'utf8');
  }
  return header;
}

/** Signature, version and command, family and protocol, length of the rest (PROXY protocol §2.2). */
const HEADER_SIZE = 16;
const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const VERSION_2_COMMAND_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
const TLV_HEADER_SIZE = 3;
/** In the range for applications; waypoints read the client's identity from it. */
const TLV_SOURCE_IDENTITY = 0xd0;

function addressWords(address: SocketAddress) {
  const parsed = parseIp(address.ip);
  if (parsed === null) throw new CulvertError('PROXY_HEADER_INVALID', `${address.ip} is no IP address`);
  return parsed;
}

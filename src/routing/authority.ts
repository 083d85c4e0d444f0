import { parsePort, parseSocketAddress, type SocketAddress } from '../netns/address.ts';

/** What the `:authority` of a CONNECT request names. */
export type Authority =
  | { readonly kind: 'address'; readonly address: SocketAddress }
  | { readonly kind: 'hostname'; readonly hostname: string; readonly port: number };

/** Reads `ip:port`, `[v6]:port` or `hostname:port`, port 1..65535 (spec §4.2); null for anything else. */
export function parseAuthority(text: string): Authority | null {
  const address = parseSocketAddress(text);
  if (address !== null) return address.port === 0 ? null : { kind: 'address', address };
  const colon = text.lastIndexOf(':');
  const hostname = text.slice(0, colon);
  const port = parsePort(text.slice(colon + 1));
  if (colon <= 0 || !port || hostname.length > MAX_HOSTNAME || !HOSTNAME.test(hostname)) return null;
  return { kind: 'hostname', hostname, port };
}

/** RFC 1035 §2.3.4 */
const MAX_HOSTNAME = 253;
/** Letters, digits, `-`, `_` and dots between labels; the last label is no number, or it would be a malformed IPv4. */
const HOSTNAME = /^(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*\.?$/;

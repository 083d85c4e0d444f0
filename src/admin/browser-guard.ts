/**
 * The admin port has no password: whoever reaches it on loopback may use it. A web page in a browser on this machine
 * must not, so requests that such a page could have caused are refused.
 */
import { isIP } from 'node:net';
import { isLoopback } from '../netns/address.ts';
import type { Request } from './http-service.ts';

/** Why a request is refused; the tag of `culvert_admin_rejects`. */
export type AdminRejection =
  /** It did not come over loopback. */
  | 'not-loopback'
  /** `Host` is a name: a page whose name was made to point at 127.0.0.1 (DNS rebinding) would read the reply. */
  | 'foreign-host'
  /** A page of another origin sent something that changes state. */
  | 'cross-origin';

/** Null when the request may be served. */
export function rejectionOf(request: Request): AdminRejection | null {
  const { method, headers, remoteIp } = request;
  if (remoteIp === null || !isLoopback(remoteIp)) return 'not-loopback';
  if (headers.host !== undefined && !isLiteralHost(headers.host)) return 'foreign-host';
  if (method !== 'GET' && method !== 'HEAD' && isCrossOrigin(headers)) return 'cross-origin';
  return null;
}

/** True for `localhost`, IPv4 and bracketed IPv6, with or without a port. */
function isLiteralHost(host: string): boolean {
  const name = host.replace(/:\d*$/, '').toLowerCase();
  if (name.startsWith('[')) return name.endsWith(']') && isIP(name.slice(1, -1)) === 6;
  return name === 'localhost' || isIP(name) === 4;
}

/** Browsers say where a request comes from; command-line clients say nothing. */
function isCrossOrigin(headers: Request['headers']): boolean {
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return true;
  return headers.origin !== undefined && headers.origin !== `http://${headers.host}`;
}

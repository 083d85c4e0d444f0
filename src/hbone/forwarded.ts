import { formatSocketAddress, type SocketAddress } from '../netns/address.ts';
import { isToken } from './field-rules.ts';

/** What the first element of a `forwarded` header says. Null where it says nothing. */
export interface Forwarded {
  /** The client, as given: `ip:port`, `[v6]:port`, `unknown` or an obfuscated name. */
  readonly client: string | null;
  /** The service that the client asked for. */
  readonly host: string | null;
}

/** The `forwarded` header (RFC 7239) of a stream: `for="ip:port"`, and `;host=name` when the service is known. */
export function buildForwarded(client: SocketAddress, host: string | null): string {
  const forClient = `for="${formatSocketAddress(client)}"`;
  if (host === null || host === '' || !/^[ -~]*$/.test(host)) return forClient;
  return `${forClient};host=${isToken(host) ? host : `"${host.replace(/["\\]/g, '\\$&')}"`}`;
}

/** Reads `forwarded` (RFC 7239 §4): parameter names in any case, values quoted or not. Never throws; nonsense says nothing. */
export function parseForwarded(header: string): Forwarded {
  if (header.length > MAX_LENGTH) return NOTHING;
  if (CLIENT_ONLY.test(header)) return { client: header.slice(5, -1), host: null };
  let client: string | null = null;
  let host: string | null = null;
  PAIR.lastIndex = 0;
  while (PAIR.lastIndex < header.length) {
    const pair = PAIR.exec(header);
    if (pair === null) return NOTHING;
    const name = pair[1]!.toLowerCase();
    const value = pair[2] ?? unescaped(pair[3]!);
    if (name === 'for') client ??= value;
    if (name === 'host') host ??= value;
    // A later element is about a later hop.
    if (pair[4] === ',') break;
  }
  return { client, host: host === '' ? null : host };
}

function unescaped(quotedValue: string): string {
  return quotedValue.includes('\\') ? quotedValue.replace(/\\(.)/g, '$1') : quotedValue;
}

/** Far above an address and a DNS name. */
const MAX_LENGTH = 1024;
const NOTHING: Forwarded = { client: null, host: null };
/** What every connection to an address has, in our words: nothing to take apart. */
const CLIENT_ONLY = /^for="[0-9A-Fa-f.:[\]]+"$/;
/** Plain values may hold what only quoted ones should (`for=10.0.0.1:80`): peers do send that. */
const PAIR = /[ \t]*([A-Za-z]+)=(?:([^\s",;]*)|"((?:[^"\\]|\\.)*)")[ \t]*([;,]|$)/y;

import { fieldFault, isToken, pseudoFieldFault, quoted } from './field-rules.ts';
import type { HeaderField } from './hpack.ts';

/**
 * The header block that opens a stream. `other-method` is a well-formed request that is answered 400 (HBONE knows only
 * CONNECT); `malformed` is a stream error PROTOCOL_ERROR (RFC 9113 §8.1.1).
 */
export type RequestHead =
  | { readonly kind: 'connect'; readonly authority: string; readonly headers: readonly HeaderField[] }
  | { readonly kind: 'other-method'; readonly method: string }
  | Malformed;

/** A header block that answers a request; `interim` (1xx) is followed by another. */
export type ResponseHead =
  | { readonly kind: 'response'; readonly status: number; readonly headers: readonly HeaderField[] }
  | { readonly kind: 'interim'; readonly status: number }
  | Malformed;

export type TrailersHead = { readonly kind: 'trailers'; readonly headers: readonly HeaderField[] } | Malformed;

export interface Malformed {
  readonly kind: 'malformed';
  /** For the log: what is wrong, in printable ASCII. */
  readonly detail: string;
}

/** Judges a request (RFC 9113 §8.2, §8.3.1, §8.5). `headers` of the result are the regular fields, in their order. */
export function readRequestHead(fields: readonly HeaderField[]): RequestHead {
  const split = splitPseudo(fields, REQUEST_PSEUDO);
  if (split.kind === 'malformed') return split;
  const { headers } = split;
  const [method, scheme, authority, path] = split.pseudo;
  if (method === undefined) return malformed('request without :method');
  if (!isToken(method)) return malformed(`:method ${quoted(method)} is no method`);
  const host = firstValue(headers, 'host');
  if (authority !== undefined && host !== null && !sameHost(authority, host)) {
    return malformed(`host ${quoted(host)} differs from :authority ${quoted(authority)}`);
  }
  if (method !== 'CONNECT') {
    if (scheme === undefined) return malformed('request without :scheme');
    if (!path) return malformed('request without :path');
    return { kind: 'other-method', method };
  }
  if (scheme !== undefined) return malformed('CONNECT with :scheme');
  if (path !== undefined) return malformed('CONNECT with :path');
  if (!authority) return malformed('CONNECT without :authority');
  return { kind: 'connect', authority, headers };
}

/** Judges a response, final or interim (RFC 9113 §8.2, §8.3.2). */
export function readResponseHead(fields: readonly HeaderField[]): ResponseHead {
  const split = splitPseudo(fields, RESPONSE_PSEUDO);
  if (split.kind === 'malformed') return split;
  const [text] = split.pseudo;
  if (text === undefined) return malformed('response without :status');
  if (!/^[1-9][0-9][0-9]$/.test(text)) return malformed(`:status ${quoted(text)} is no status`);
  const status = Number(text);
  // There is nothing to switch to in HTTP/2 (RFC 9113 §8.6).
  if (status === 101) return malformed('response with status 101');
  return status < 200 ? { kind: 'interim', status } : { kind: 'response', status, headers: split.headers };
}

/** Judges the header block behind the content (RFC 9113 §8.1): no pseudo-header fields there. */
export function readTrailers(fields: readonly HeaderField[]): TrailersHead {
  const split = splitPseudo(fields, TRAILER_PSEUDO);
  return split.kind === 'malformed' ? split : { kind: 'trailers', headers: split.headers };
}

/** The value of a field, several fields of one name joined by commas (RFC 9110 §5.3); null when there is none. */
export function fieldValue(headers: readonly HeaderField[], name: string): string | null {
  let joined: string | null = null;
  for (const field of headers) {
    if (field[0] === name) joined = joined === null ? field[1] : `${joined}, ${field[1]}`;
  }
  return joined;
}

function firstValue(headers: readonly HeaderField[], name: string): string | null {
  for (const field of headers) if (field[0] === name) return field[1];
  return null;
}

/** What the client side of a tunnel says about a stream. */
export interface ConnectRequest {
  /** `ip:port`, `[v6]:port` or `hostname:port`. */
  readonly authority: string;
  /** From `buildBaggage`; sent even when empty. */
  readonly baggage: string;
  /** From `buildForwarded`. */
  readonly forwarded: string;
  readonly traceparent: string;
  /** The own network's name, on the inner stream of a double tunnel only; otherwise null. */
  readonly forwardedNetwork: string | null;
}

/** The header list of a CONNECT as peers of this protocol expect it: no :scheme, no :path, this order. */
export function connectRequestHeaders(request: ConnectRequest): HeaderField[] {
  const fields: HeaderField[] = [
    METHOD_CONNECT,
    [':authority', request.authority],
    ['baggage', request.baggage],
    ['forwarded', request.forwarded],
    ['traceparent', request.traceparent],
  ];
  if (request.forwardedNetwork !== null) fields.push(['x-forwarded-network', request.forwardedNetwork]);
  return fields;
}

/** The header list of an answer; `baggage` goes with 200 only, and only when response baggage is on. */
export function responseHeaders(status: number, baggage: string | null): HeaderField[] {
  const fields: HeaderField[] = [[':status', String(status)]];
  if (baggage !== null) fields.push(['baggage', baggage]);
  return fields;
}

/** The network that `x-forwarded-network` names: null when it is absent, empty or longer than a name can be. */
export function readForwardedNetwork(headers: readonly HeaderField[]): string | null {
  const network = fieldValue(headers, 'x-forwarded-network')?.trim() ?? '';
  return network === '' || network.length > MAX_NAME_LENGTH ? null : network;
}

const METHOD_CONNECT: HeaderField = [':method', 'CONNECT'];
/** No name in Kubernetes or DNS is longer. */
const MAX_NAME_LENGTH = 253;

// `:protocol` is unknown here: extended CONNECT (RFC 8441) is only for peers to whom it was announced.
const REQUEST_PSEUDO = [':method', ':scheme', ':authority', ':path'];
const RESPONSE_PSEUDO = [':status'];
const TRAILER_PSEUDO: readonly string[] = [];

interface Split {
  readonly kind: 'split';
  /** Values in the order of the known names. */
  readonly pseudo: readonly (string | undefined)[];
  readonly headers: readonly HeaderField[];
}

/** Checks every field and parts the pseudo-header fields from the others (RFC 9113 §8.3). */
function splitPseudo(fields: readonly HeaderField[], known: readonly string[]): Split | Malformed {
  const pseudo: (string | undefined)[] = [undefined, undefined, undefined, undefined];
  let count = 0;
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i]!;
    const name = field[0];
    if (name.charCodeAt(0) !== COLON) {
      const fault = fieldFault(field);
      if (fault !== null) return malformed(fault);
      continue;
    }
    const at = known.indexOf(name);
    if (at < 0) return malformed(`pseudo-header field ${quoted(name)} does not belong here`);
    if (pseudo[at] !== undefined) return malformed(`pseudo-header field ${quoted(name)} twice`);
    if (count < i) return malformed(`pseudo-header field ${quoted(name)} behind a regular field`);
    const fault = pseudoFieldFault(field);
    if (fault !== null) return malformed(fault);
    pseudo[at] = field[1];
    count++;
  }
  return { kind: 'split', pseudo, headers: fields.slice(count) };
}

const COLON = 0x3a;

/** Whether Host names the same entity as :authority (RFC 9113 §8.3.1); it may leave the port out. */
function sameHost(authority: string, host: string): boolean {
  const a = authority.toLowerCase();
  const h = host.toLowerCase();
  return a === h || a.slice(0, a.lastIndexOf(':')) === h;
}

function malformed(detail: string): Malformed {
  return { kind: 'malformed', detail };
}

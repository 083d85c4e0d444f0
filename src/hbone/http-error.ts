import { CulvertError } from '../errors.ts';

/** The error codes of RST_STREAM and GOAWAY (RFC 9113 §7). */
export const ErrorCode = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
  HTTP_1_1_REQUIRED: 0xd,
} as const;

export type ErrorCodeName = keyof typeof ErrorCode;
export type ErrorCode = (typeof ErrorCode)[ErrorCodeName];

/** What an error ends: the whole connection (GOAWAY, RFC 9113 §5.4.1) or one stream (RST_STREAM, §5.4.2). */
export type ErrorScope = { readonly kind: 'connection' } | { readonly kind: 'stream'; readonly streamId: number };

/**
 * What a peer did, for metrics: something that is bounded because it costs the other side more than the peer, or
 * `protocol` for any other breach of the RFCs.
 */
export type Breach =
  | 'protocol'
  /** RFC 7541 */
  | 'hpack'
  | 'header-list'
  | 'continuation-flood'
  | 'rapid-reset'
  | 'stream-errors'
  | 'empty-frames'
  | 'settings-flood'
  | 'ping-flood'
  | 'useless-frames'
  | 'window-trickle'
  /** A stream waits for window, for a minute so far: nothing is read for it, but it holds its connection. */
  | 'window-stall'
  /** Streams that are not read leave a server nothing to send: its client is asked to open another connection. */
  | 'window-starved'
  | 'slow-preface'
  | 'unread-answers'
  /** This agent’s own fault. */
  | 'internal';

/**
 * A breach of HTTP/2 by the peer. `http2Code` is what RST_STREAM or GOAWAY carries; `code` is its name after `HTTP2_`,
 * for logs and metrics.
 */
export class Http2Error extends CulvertError<`HTTP2_${ErrorCodeName}`> {
  readonly scope: ErrorScope;
  readonly http2Code: ErrorCode;
  readonly breach: Breach;

  constructor(scope: ErrorScope, name: ErrorCodeName, message: string, breach: Breach) {
    super(`HTTP2_${name}`, message);
    this.name = 'Http2Error';
    this.scope = scope;
    this.breach = breach;
    this.http2Code = ErrorCode[name];
  }
}

/** An error that ends the connection: `throw connectionError('PROTOCOL_ERROR', 'SETTINGS on stream 3')`. */
export function connectionError(
  name: ErrorCodeName,
  message: string,
  breach: Breach = name === 'COMPRESSION_ERROR' ? 'hpack' : 'protocol',
): Http2Error {
  return new Http2Error(CONNECTION, name, message, breach);
}

/** An error that ends one stream and leaves its siblings alone. */
export function streamError(
  streamId: number,
  name: ErrorCodeName,
  message: string,
  breach: Breach = 'protocol',
): Http2Error {
  return new Http2Error({ kind: 'stream', streamId }, name, message, breach);
}

/** The name of a code as peers send it; an unknown one as `0x` and eight hex digits (peers may send any, RFC 9113 §7). */
export function errorCodeName(code: number): string {
  return NAMES[code] ?? `0x${(code >>> 0).toString(16).padStart(8, '0')}`;
}

const CONNECTION: ErrorScope = { kind: 'connection' };
const NAMES: readonly string[] = Object.keys(ErrorCode);

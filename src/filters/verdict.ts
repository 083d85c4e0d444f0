import type { ResponseFlag } from '../metrics/traffic-labels.ts';

/** What a filter says of a connection. A pending one is asked again when its connection goes on. */
export type Verdict = typeof CONTINUE | typeof PENDING | Refusal;

export const CONTINUE = { kind: 'continue' } as const;
export const PENDING = { kind: 'pending' } as const;

export interface Refusal {
  /** `deny`: a rule does not permit it; `close`: it cannot be served. */
  readonly kind: 'deny' | 'close';
  /** Stable name, for metrics. */
  readonly reason: string;
  /** The operator's text, for the log (spec §13.6). */
  readonly message: string;
  /** `response_flags` of the traffic metrics (spec §12.2). */
  readonly flag: ResponseFlag;
  /** The answer to a CONNECT request (spec §4.4). */
  readonly status: 400 | 401 | 503;
}

export function deny(reason: string, message: string): Refusal {
  return { kind: 'deny', reason, message, flag: 'DENY', status: 401 };
}

/** What a channel of the addon says when the certificate of its peer is revoked. */
const PEER_REVOKED = 'connection closed: peer certificate revoked by CRL';

/**
 * What ends a connection that was broken. A tunnel breaks too when the certificate of its peer is revoked, which is to be
 * told apart (spec §8.7).
 */
export function broken(reason: string, message: string, flag: ResponseFlag = 'CONNECT'): Refusal {
  if (message.includes(PEER_REVOKED)) return close('peer-revoked', PEER_REVOKED, 503, 'CERT_REVOKED');
  return close(reason, message, 503, flag);
}

export function close(
  reason: string,
  message: string,
  status: 400 | 503 = 503,
  flag: ResponseFlag = 'CONNECT',
): Refusal {
  return { kind: 'close', reason, message, flag, status };
}

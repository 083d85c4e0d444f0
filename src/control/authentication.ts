import type { X509Certificate } from 'node:crypto';
import { printable } from '../control-plane/failure.ts';
import { messageOf } from '../errors.ts';
import type { IsRevoked } from './ca/revocations.ts';
import { CallRefused } from './call-refused.ts';
import { callerOfCertificate } from './client-certificate.ts';
import type { Metadata, Peer } from './grpc/service.ts';

/** Who calls, as somebody has vouched for: the API server, an operator's file, or the CA of the mesh. */
export interface Caller {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The pod that the token is bound to; null for a token of no pod, and for a certificate. */
  readonly pod: { readonly name: string; readonly uid: string } | null;
  /** Where whoever vouches says so himself; null where the pod's object has to. */
  readonly node: string | null;
}

/** Rejects with CallRefused: UNAUTHENTICATED, or UNAVAILABLE when nobody can tell for the moment. */
export type Authenticate = (metadata: Metadata, peer: Peer) => Promise<Caller>;

/** Vouches for tokens. Rejects when nobody can tell for the moment. */
export interface TokenReviewer {
  /** @param ip of whoever has sent it; one address must not crowd out the others */
  review(token: string, ip: string): Promise<Caller | TokenRefused>;
}

export interface TokenRefused {
  /** For the log; has nothing of the token in it. */
  readonly refused: string;
}

export interface AuthenticationOptions {
  readonly tokens: TokenReviewer;
  /** Roots that certificates of clients must lead to at this moment. */
  readonly roots: () => readonly X509Certificate[];
  readonly isRevoked: IsRevoked;
  readonly trustDomain: string;
  /** The only cluster whose callers are known, as their header `clusterid` names it. */
  readonly clusterId: string;
  readonly now?: () => number;
}

/** Authenticates as istiod does (node-09 §9.1): by a certificate of the mesh if one is shown, else by a token. */
export function createAuthentication(options: AuthenticationOptions): Authenticate {
  const { tokens, roots, isRevoked, trustDomain, clusterId, now = Date.now } = options;

  return async (metadata, peer) => {
    let refusedCertificate = 'no certificate was shown';
    if (peer.certificate !== null) {
      try {
        return callerOfCertificate(peer.certificate, roots(), isRevoked, trustDomain, now());
      } catch (error) {
        refusedCertificate = messageOf(error);
      }
    }
    const verdict = await callerOfToken(metadata, peer.address.slice(0, peer.address.lastIndexOf(':')));
    if ('refused' in verdict) throw unauthenticated(`${verdict.refused}; ${refusedCertificate}`);
    return verdict;
  };

  async function callerOfToken(metadata: Metadata, ip: string): Promise<Caller | TokenRefused> {
    const { clusterid: cluster, authorization } = metadata;
    if (cluster !== undefined && cluster !== '' && cluster !== clusterId) {
      return { refused: `the caller is of cluster ${quoted(cluster)}, and only ${quoted(clusterId)} is known` };
    }
    const token = /^Bearer +([\x21-\x7e]+)$/i.exec(authorization ?? '')?.[1];
    if (token === undefined) return { refused: 'no token was sent' };
    if (token.length > MAX_TOKEN_LENGTH) return { refused: `the token is longer than ${MAX_TOKEN_LENGTH} characters` };
    try {
      return await tokens.review(token, ip);
    } catch (error) {
      if (error instanceof CallRefused) throw error;
      const reason = printable(messageOf(error), token);
      throw new CallRefused('UNAVAILABLE', 'request authentication is unavailable, try again', reason);
    }
  }
}

/** Tokens of Kubernetes have 1 to 2 KiB. */
const MAX_TOKEN_LENGTH = 16 * 1024;

/** The text is the incumbent's, and tells a stranger nothing (control-02 §4). */
function unauthenticated(reason: string): CallRefused {
  return new CallRefused('UNAUTHENTICATED', 'request authenticate failure', reason);
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}

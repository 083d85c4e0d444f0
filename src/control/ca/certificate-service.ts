import { CulvertError, messageOf } from '../../errors.ts';
import { decodeCertificateRequest, encodeCertificateResponse } from '../../identity/ca-messages.ts';
import { formatSpiffeId } from '../../identity/spiffe.ts';
import type { Logger } from '../../log/logger.ts';
import type { Registry } from '../../metrics/registry.ts';
import type { Authenticate, Caller } from '../authentication.ts';
import { CallRefused } from '../call-refused.ts';
import type { Call, GrpcService } from '../grpc/service.ts';
import { createLineQuota } from '../line-quota.ts';
import type { CertificateAuthority, IssuedLeaf } from './certificate-authority.ts';
import { readSigningRequest, type SigningRequest } from './csr.ts';
import { CA } from './metrics.ts';
import type { NodeAuthorizer } from './node-authorizer.ts';

export interface CertificateServiceOptions {
  readonly ca: CertificateAuthority;
  readonly authenticate: Authenticate;
  readonly authorizer: NodeAuthorizer;
  readonly trustDomain: string;
  /** Validity of a certificate whose request names none, in ms. */
  readonly defaultTtlMs: number;
  /** A request for more is refused. */
  readonly maxTtlMs: number;
  /** A request for more gets this. */
  readonly longestMs: number;
  readonly metrics: Pick<Registry, 'counter'>;
  readonly log: Pick<Logger, 'info' | 'warn' | 'debug'>;
}

/**
 * `istio.v1.auth.IstioCertificateService`. Whose certificate it is follows
 * from who calls, or from whom the caller may speak for; a request that names anybody else is refused, where the
 * incumbent does not look at the names in it (control-02 §4).
 */
export function createCertificateService(options: CertificateServiceOptions): GrpcService {
  const { ca, authenticate, authorizer, trustDomain, defaultTtlMs, maxTtlMs, longestMs, metrics, log } = options;
  const counters = {
    requests: metrics.counter(CA.requests),
    unauthenticated: metrics.counter(CA.unauthenticated),
    unreadable: metrics.counter(CA.unreadable),
    signFailures: metrics.counter(CA.signFailures),
    issued: metrics.counter(CA.issued),
    refused: metrics.counter(CA.refused),
  };

  const quota = createLineQuota(MAX_LINES_PER_SECOND);

  /** The serialized answer. @throws CallRefused */
  async function answer(message: Uint8Array, call: Call): Promise<Buffer> {
    counters.requests.add(1);
    const known: { caller: Caller | null; identity: string } = { caller: null, identity: '' };
    try {
      known.caller = await authenticate(call.metadata, call.peer);
      const request = decode(message);
      known.identity = request.impersonatedIdentity ?? identityOf(known.caller);
      if (request.impersonatedIdentity !== null) await authorizer.permit(known.caller, request.impersonatedIdentity);
      const ttlMs = validity(request.validitySeconds);
      const signing = read(request.csr, known.identity);
      const leaf = await sign(signing, known.identity, ttlMs);
      counters.issued.add(1);
      log.debug('control::ca', 'issued a certificate', {
        identity: known.identity,
        to: accountOf(known.caller),
        until: new Date(leaf.notAfter).toISOString(),
      });
      return encodeCertificateResponse([leaf.certPem, ...leaf.intermediatesPem, leaf.rootsPem]);
    } catch (error) {
      throw refused(error, call.peer.address, known);
    }
  }

  function refused(error: unknown, peer: string, { caller, identity }: { caller: Caller | null; identity: string }) {
    if (!(error instanceof CallRefused)) return error;
    const isUnknown = caller === null && error.code === 'UNAUTHENTICATED';
    if (isUnknown) counters.unauthenticated.add(1);
    counters.refused.add(1, isUnknown ? 'authentication' : REASONS[error.code]);
    const omitted = quota.take();
    if (omitted === null) return error;
    log.warn('control::ca', 'refused a certificate', {
      peer,
      ...(caller === null ? {} : { caller: accountOf(caller) }),
      ...(identity === '' ? {} : { identity: identity.slice(0, 300) }),
      reason: error.reason,
      ...(omitted === 0 ? {} : { refusals_not_logged: omitted }),
    });
    return error;
  }

  function decode(message: Uint8Array) {
    try {
      return decodeCertificateRequest(message);
    } catch (cause) {
      counters.unreadable.add(1);
      throw new CallRefused('INVALID_ARGUMENT', 'the request cannot be read', messageOf(cause), { cause });
    }
  }

  function identityOf({ namespace, serviceAccount }: Caller): string {
    return formatSpiffeId({ trustDomain, namespace, serviceAccount });
  }

  function validity(seconds: number): number {
    const ttlMs = seconds <= 0 ? defaultTtlMs : seconds * 1000;
    if (ttlMs <= maxTtlMs) return Math.min(ttlMs, longestMs);
    const detail = `requested validity of ${seconds} s is more than the ${maxTtlMs / 1000} s of MAX_WORKLOAD_CERT_TTL`;
    throw new CallRefused('INVALID_ARGUMENT', signingError(detail), detail);
  }

  function read(csr: string, identity: string): SigningRequest {
    try {
      const request = readSigningRequest(csr);
      const other = request.names.find((name) => name !== identity);
      if (other === undefined) return request;
      throw new CulvertError('CSR_INVALID', `it asks for other names than ${identity}`);
    } catch (cause) {
      if (!(cause instanceof CulvertError)) throw cause;
      counters.unreadable.add(1);
      throw new CallRefused('INVALID_ARGUMENT', signingError(cause.message), cause.message, { cause });
    }
  }

  async function sign(request: SigningRequest, identity: string, ttlMs: number): Promise<IssuedLeaf> {
    // X.520: at most 64 characters.
    const commonName = request.hasCommonName && identity.length <= 64 ? identity : null;
    try {
      return await ca.issue({ names: [identity], commonName, ttlMs }, request.publicKey);
    } catch (cause) {
      if (!(cause instanceof CulvertError)) throw cause;
      counters.signFailures.add(1, cause.code);
      const status = cause.code === 'CA_NOT_READY' ? 'UNAVAILABLE' : 'INTERNAL';
      throw new CallRefused(status, signingError(cause.message), cause.message, { cause });
    }
  }

  return {
    name: 'istio.v1.auth.IstioCertificateService',
    methods: { CreateCertificate: { kind: 'unary', maxRequest: MAX_REQUEST_BYTES, answer } },
  };
}

/** A request for an RSA key of 8192 bits has 4 KiB. */
const MAX_REQUEST_BYTES = 64 * 1024;

const MAX_LINES_PER_SECOND = 20;

const REASONS = {
  UNAUTHENTICATED: 'impersonation',
  INVALID_ARGUMENT: 'request',
  RESOURCE_EXHAUSTED: 'overload',
  UNAVAILABLE: 'unavailable',
  INTERNAL: 'signing',
} as const;

/** The incumbent's form. */
function signingError(detail: string): string {
  return `CSR signing error (${detail})`;
}

function accountOf({ namespace, serviceAccount, pod }: Caller): string {
  return `${namespace}/${serviceAccount}${pod === null ? '' : ` (pod ${pod.name})`}`;
}

import type { X509Certificate } from 'node:crypto';
import { pathToRoot } from '../identity/path-to-root.ts';
import { parseSpiffeId } from '../identity/spiffe.ts';
import type { Caller } from './authentication.ts';
import type { IsRevoked } from './ca/revocations.ts';

/**
 * Who shows a certificate that TLS has verified. Verified again here, because a connection outlives certificates and roots.
 * Exactly one name is taken, an identity of this trust domain (SPIFFE X.509-SVID §2); the incumbent takes every name.
 * @throws Error why it is nobody's
 */
export function callerOfCertificate(
  certificate: X509Certificate,
  roots: readonly X509Certificate[],
  isRevoked: IsRevoked,
  trustDomain: string,
  now: number,
): Caller {
  const path = pathToRoot(
    certificate,
    issuersOf(certificate).filter(({ ca }) => ca),
    roots,
  );
  if (path === null) throw new Error('the certificate that was shown does not lead to a root of this mesh');
  const outdated = path.some(
    ({ validFromDate, validToDate }) => now < Number(validFromDate) || now > Number(validToDate),
  );
  if (outdated) throw new Error('the certificate that was shown, or one above it, is not valid at this time');
  if (path.some(isRevoked)) throw new Error('the certificate that was shown, or one above it, is revoked');
  if (certificate.ca) throw new Error('the certificate that was shown is one of a CA');
  const clientUsage = certificate.keyUsage?.includes(CLIENT_AUTH) ?? false;
  if (!clientUsage) throw new Error('the certificate that was shown is not for TLS clients');
  // Node quotes a name that could be taken for several, so that this is the only one.
  const identity = /^URI:(spiffe:[^\s,"]+)$/.exec(certificate.subjectAltName ?? '')?.[1];
  if (identity === undefined) throw new Error('the certificate that was shown does not bear exactly one identity');
  const id = parseSpiffeId(identity);
  if (id.trustDomain !== trustDomain)
    throw new Error(`the certificate that was shown is of trust domain ${id.trustDomain}`);
  return { namespace: id.namespace, serviceAccount: id.serviceAccount, pod: null, node: null };
}

/** id-kp-clientAuth; Node's `keyUsage` is the extended key usage. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** What the client has sent above its own. */
function issuersOf(certificate: X509Certificate): X509Certificate[] {
  const issuers: X509Certificate[] = [];
  let above = certificate.issuerCertificate;
  while (above !== undefined && issuers.length < MAX_ISSUERS && !issuers.includes(above)) {
    issuers.push(above);
    above = above.issuerCertificate;
  }
  return issuers;
}

const MAX_ISSUERS = 10;

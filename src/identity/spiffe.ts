import { CulvertError } from '../errors.ts';

/** A workload's identity in the form this mesh uses: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` (§8.1). */
export interface SpiffeId {
  readonly trustDomain: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * Reads a SPIFFE id. Nothing is trimmed, decoded or completed, so two texts mean the same identity only when they are equal.
 * @throws CulvertError IDENTITY_INVALID
 */
export function parseSpiffeId(text: string): SpiffeId {
  if (!text.startsWith(SCHEME)) throw invalid(text, 'it does not start with spiffe://');
  const parts = text.slice(SCHEME.length).split('/');
  if (parts.length !== 5) throw invalid(text, 'it is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>');
  const [trustDomain = '', ns, namespace = '', sa, serviceAccount = ''] = parts;
  if (ns !== 'ns' || sa !== 'sa') throw invalid(text, 'its path is not /ns/<namespace>/sa/<service account>');
  const id = { trustDomain, namespace, serviceAccount };
  check(id, text);
  return id;
}

/**
 * Writes a SPIFFE id; `parseSpiffeId` gives the same parts back.
 * @throws CulvertError IDENTITY_INVALID when a part is empty or has a character that SPIFFE does not permit there
 */
export function formatSpiffeId(id: SpiffeId): string {
  const text = `${SCHEME}${id.trustDomain}/ns/${id.namespace}/sa/${id.serviceAccount}`;
  check(id, text);
  return text;
}

const SCHEME = 'spiffe://';
// SPIFFE-ID §2: at most 2048 bytes, of which the trust domain has at most 255.
const MAX_LENGTH = 2048;
const MAX_TRUST_DOMAIN_LENGTH = 255;
// Wider than SPIFFE's by capitals and the colon: both occur in trust domains that clusters really have (`example.com:project.svc.id.goog`).
const TRUST_DOMAIN = /^[A-Za-z0-9._:-]+$/;
const SEGMENT = /^(?!\.{1,2}$)[A-Za-z0-9._-]+$/;

function check(id: SpiffeId, text: string): void {
  if (text.length > MAX_LENGTH) throw invalid(text, `it is longer than ${MAX_LENGTH} bytes`);
  if (id.trustDomain.length > MAX_TRUST_DOMAIN_LENGTH || !TRUST_DOMAIN.test(id.trustDomain)) {
    throw invalid(text, 'its trust domain is empty, too long or has a character that is not permitted');
  }
  if (!SEGMENT.test(id.namespace))
    throw invalid(text, 'its namespace is empty or has a character that is not permitted');
  if (!SEGMENT.test(id.serviceAccount)) {
    throw invalid(text, 'its service account is empty or has a character that is not permitted');
  }
}

function invalid(text: string, why: string): CulvertError {
  return new CulvertError('IDENTITY_INVALID', `not a workload identity: ${JSON.stringify(text.slice(0, 300))}: ${why}`);
}

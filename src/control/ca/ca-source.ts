import { CulvertError } from '../../errors.ts';
import type { CaMaterial } from '../../identity/ca-material.ts';
import { splitCertificates } from '../../identity/pem.ts';

/** Where the CA of the mesh has its key and roots from. */
export interface CaSource {
  /** For errors and logs. */
  readonly where: string;
  /** What signs now; null until there is something. */
  material(): CaMaterial | null;
  /** Revocation lists that an operator has put beside it, PEM; null for none. */
  revocationLists(): string | null;
  /** Called whenever one of the two has changed. */
  onChange(listener: () => void): void;
  close(): void;
}

/**
 * Certificates of a root that agents do not trust yet would cut them off from each other.
 * @throws CulvertError CA_NOT_TRUSTED_YET
 */
export function checkTrusted(before: CaMaterial, next: CaMaterial): void {
  if (splitCertificates(before.rootsPem).includes(next.anchor.toString())) return;
  throw new CulvertError(
    'CA_NOT_TRUSTED_YET',
    'the new CA leads to a root that agents do not trust yet, and the one of before goes on signing; first add the new root to root-cert.pem alone, wait for the longest validity of certificates, then replace key and certificate. To break with the old root at once, annotate the ConfigMap istio-ca-root-cert with culvert.io/allow-new-root=now and restart all replicas',
  );
}

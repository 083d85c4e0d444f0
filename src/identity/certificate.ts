import type { KeyObject } from 'node:crypto';

/**
 * The certificate of one workload with its key, as the data plane uses it. It can be posted to worker threads, which then
 * share the key: it stays in OpenSSL's memory, outside of the heap, and cannot be printed.
 */
export interface WorkloadCertificate {
  /** The SPIFFE id it is for. */
  readonly identity: string;
  readonly privateKey: KeyObject;
  /** The leaf and the intermediates above it, without the root. */
  readonly chainPem: string;
  /** What peers' certificates are verified against. */
  readonly rootsPem: string;
  /** Validity of the leaf, ms since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Serial number of the leaf, decimal. */
  readonly serial: string;
}

/** Whoever signs certificates: the embedded CA or a client of a remote one. */
export interface CertificateAuthorityClient {
  /** What errors and logs call it. */
  readonly name: string;
  /** A fresh key and a certificate for it. Rejects with a CulvertError that says what an operator can do about it. */
  sign(identity: string): Promise<WorkloadCertificate>;
  close(): void;
}

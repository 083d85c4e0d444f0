import { inspect } from 'node:util';

/**
 * The certificate of one workload with its key, as the data plane uses it. Plain data: it is posted to worker threads.
 * Objects made by `workloadCertificate` print without their key; a copy that crossed a thread is plain and must go
 * through it again before anything may print it.
 */
export interface WorkloadCertificate {
  /** The SPIFFE id it is for. */
  readonly identity: string;
  /** PKCS#8. */
  readonly privateKeyPem: string;
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

/** The same fields in an object that shows no key when it is printed or turned into JSON. */
export function workloadCertificate(fields: WorkloadCertificate): WorkloadCertificate {
  return Object.assign(Object.create(printsWithoutKey), fields);
}

// On the prototype, because structured clone copies own properties only and refuses functions among them.
const printsWithoutKey = {
  toJSON(this: WorkloadCertificate) {
    const { privateKeyPem: _, ...rest } = this;
    return rest;
  },
  toString(this: WorkloadCertificate) {
    return `certificate ${this.serial} of ${this.identity}`;
  },
  [inspect.custom](this: WorkloadCertificate) {
    return `[${String(this)}]`;
  },
};

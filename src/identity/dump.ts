import { X509Certificate } from 'node:crypto';
import type { CertificateState } from './manager.ts';
import { certificateToPem, splitCertificates } from './pem.ts';

/** One entry of `certificates` in the config dump (§14.4), as `istioctl ztunnel-config certificates` reads it. */
export interface DumpedCertificates {
  readonly identity: string;
  /** `Available`, `Initializing` or `Unavailable: <error>`. */
  readonly state: string;
  /** Leaf, then intermediates. */
  readonly certChain: readonly DumpedCertificate[];
  readonly rootCerts: readonly DumpedCertificate[];
}

export interface DumpedCertificate {
  /** Base64 of the PEM text. */
  readonly pem: string;
  /** Decimal. */
  readonly serialNumber: string;
  /** RFC 3339, whole seconds, UTC. */
  readonly validFrom: string;
  readonly expirationTime: string;
}

/** The `certificates` section. It holds no keys. */
export function dumpCertificates(states: readonly CertificateState[]): DumpedCertificates[] {
  return states.map((entry) => ({
    identity: entry.identity,
    state: entry.state === 'Unavailable' ? `Unavailable: ${entry.error}` : entry.state,
    certChain: entry.state === 'Available' ? dumpPem(entry.certificate.chainPem) : [],
    rootCerts: entry.state === 'Available' ? dumpPem(entry.certificate.rootsPem) : [],
  }));
}

// The line length of the incumbent's dump, so that the same certificate gives the same text.
const PEM_WIDTH = 60;

function dumpPem(pem: string): DumpedCertificate[] {
  return splitCertificates(pem).map((block) => {
    const certificate = new X509Certificate(block);
    return {
      pem: Buffer.from(certificateToPem(certificate.raw, PEM_WIDTH)).toString('base64'),
      serialNumber: BigInt(`0x${certificate.serialNumber}`).toString(),
      validFrom: inSeconds(certificate.validFromDate),
      expirationTime: inSeconds(certificate.validToDate),
    };
  });
}

function inSeconds(date: Date): string {
  return date.toISOString().replace(/\.\d+/, '');
}

import { X509Certificate } from 'node:crypto';
import { CulvertError } from '../../errors.ts';
import { checkValidity } from '../../identity/ca-material.ts';
import { certificateToPem, splitCertificates } from '../../identity/pem.ts';
import { signLeafCertificate } from '../../identity/signing.ts';
import type { CaSource } from './ca-source.ts';

/** The CA of the mesh as its control plane signs with it. */
export interface CertificateAuthority {
  /**
   * @param publicKey SubjectPublicKeyInfo
   * @throws CulvertError CA_NOT_READY, CA_EXPIRED or CA_NOT_YET_VALID
   */
  issue(request: LeafRequest, publicKey: Buffer): Promise<IssuedLeaf>;
  /** Null while there is no CA. */
  rootsPem(): string | null;
  roots(): readonly X509Certificate[];
  revocationLists(): string | null;
  onChange(listener: () => void): void;
  close(): void;
}

export interface LeafRequest {
  /** See `LeafProfile`. */
  readonly names: readonly string[];
  readonly commonName: string | null;
  /** From now on, in ms; it ends with the certificate that signs, if that is sooner. */
  readonly ttlMs: number;
}

export interface IssuedLeaf {
  readonly certPem: string;
  /** Between it and the root; none when the root signs itself. */
  readonly intermediatesPem: readonly string[];
  /** All that are trusted, in one text. */
  readonly rootsPem: string;
  /** ms since 1970. */
  readonly notAfter: number;
}

/** Profile and times are those of control-02 §4.1. */
export function createCertificateAuthority(source: CaSource, now: () => number = Date.now): CertificateAuthority {
  let parsed: { readonly pem: string; readonly roots: readonly X509Certificate[] } = { pem: '', roots: [] };

  return {
    async issue({ names, commonName, ttlMs }, publicKey) {
      // One and the same to the end: another may take its place meanwhile.
      const material = source.material();
      if (material === null) throw new CulvertError('CA_NOT_READY', `there is no CA in ${source.where} yet`);
      const at = now();
      checkValidity(material, at, source.where);
      const { issuer, validity, intermediatesPem, rootsPem } = material;
      const notBefore = toSeconds(Math.max(at - BACKDATED_MS, validity.notBefore));
      const notAfter = toSeconds(Math.min(at + ttlMs, validity.notAfter));
      const profile = { names, commonName, keyEncipherment: true };
      const leaf = await signLeafCertificate(issuer, profile, publicKey, { notBefore, notAfter });
      return {
        certPem: certificateToPem(leaf),
        intermediatesPem: splitCertificates(intermediatesPem),
        rootsPem,
        notAfter,
      };
    },
    rootsPem: () => source.material()?.rootsPem ?? null,
    roots() {
      const pem = source.material()?.rootsPem ?? '';
      if (parsed.pem !== pem) parsed = { pem, roots: splitCertificates(pem).map((it) => new X509Certificate(it)) };
      return parsed.roots;
    },
    revocationLists: () => source.revocationLists(),
    onChange: (listener) => source.onChange(listener),
    close: () => source.close(),
  };
}

/** For peers whose clock is behind. */
const BACKDATED_MS = 2 * 60_000;

function toSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

import { createHash, type KeyObject } from 'node:crypto';
import type { CaFiles } from './ca-folder.ts';
import { certificateToPem } from './pem.ts';
import { organizationName, signRootCertificate } from './signing.ts';
import { generateWorkloadKey, privateKeyPem } from './workload-key.ts';

export interface SelfSignedRoot {
  readonly certPem: string;
  readonly key: KeyObject;
}

/**
 * A self-signed root on P-256 that signs workload certificates itself.
 * @param now ms since 1970
 * @param lifeMs how long it is valid from now on
 */
export async function createRoot(organization: string, now: number, lifeMs = ROOT_LIFE_MS): Promise<SelfSignedRoot> {
  const { publicKey, privateKey: key } = await generateWorkloadKey();
  const keyIdentifier = createHash('sha256').update(publicKey).digest().subarray(0, 20);
  const issuer = { key, name: organizationName(organization), keyIdentifier };
  const validity = { notBefore: now - BACKDATED_MS, notAfter: now + lifeMs };
  return { certPem: certificateToPem(await signRootCertificate(issuer, publicKey, validity)), key };
}

/** As the files of a CA. */
export function caFilesOf({ certPem, key }: SelfSignedRoot): CaFiles {
  return { cert: certPem, key: privateKeyPem(key), chain: certPem, roots: certPem };
}

/** Those who share a root may disagree by this much about the time at which it was made. */
const BACKDATED_MS = 60 * 60_000;
const ROOT_LIFE_MS = 3650 * 86_400_000;

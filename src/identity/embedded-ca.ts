import { X509Certificate } from 'node:crypto';
import { openCaFolder, readCaFolder } from './ca-folder.ts';
import { checkValidity } from './ca-material.ts';
import type { CertificateAuthorityClient } from './certificate.ts';
import { followCa } from './followed-ca.ts';
import { certificateToPem } from './pem.ts';
import { caFilesOf, createRoot } from './self-signed-root.ts';
import { signWorkloadCertificate } from './signing.ts';
import { parseSpiffeId } from './spiffe.ts';
import { generateWorkloadKey } from './workload-key.ts';

export interface EmbeddedCaOptions {
  /** A folder in the layout of istio's plugged-in CA; made, and filled with a new root, when it is empty. */
  readonly dir: string;
  /** Validity of workload certificates from now on, in ms; less when the CA itself ends sooner. */
  readonly ttl: number;
  /** Time in ms since 1970. */
  readonly now: () => number;
  /** Told when the folder holds another CA that can be used, and when it holds one that cannot: that of before stays. */
  readonly changed?: (error: Error | null) => void;
  /** How often the folder is looked at, in ms. */
  readonly interval?: number;
}

/**
 * The CA of agents without a control plane. Agents that are given the same folder trust each other. A folder that changes
 * is followed: a new root takes its place while the old one is still among the roots.
 * @throws CulvertError CA_FOLDER_UNUSABLE, CA_FOLDER_INCOMPLETE, CA_INVALID, CA_EXPIRED or CA_NOT_YET_VALID; `sign`
 * rejects with the last two as well, and with IDENTITY_INVALID
 */
export async function openEmbeddedCa(options: EmbeddedCaOptions): Promise<CertificateAuthorityClient> {
  const { dir, ttl, now, changed = () => {} } = options;
  const create = async () => caFilesOf(await createRoot('culvert', now()));
  const ca = followCa({
    where: dir,
    files: await openCaFolder(dir, create),
    read: () => readCaFolder(dir),
    now,
    changed,
    ...(options.interval === undefined ? {} : { interval: options.interval }),
  });

  return {
    name: `embedded CA in ${dir}`,
    async sign(identity) {
      parseSpiffeId(identity);
      const at = now();
      // One and the same to the end: another may take its place meanwhile.
      const material = ca.material();
      const { issuer, validity, intermediatesPem, rootsPem } = material;
      checkValidity(material, at, dir);
      const notBefore = toSeconds(Math.max(at - BACKDATED_MS, validity.notBefore));
      const notAfter = toSeconds(Math.min(at + ttl, validity.notAfter));
      const { publicKey, privateKey } = await generateWorkloadKey();
      const der = await signWorkloadCertificate(issuer, identity, publicKey, { notBefore, notAfter });
      const leaf = new X509Certificate(der);
      return {
        identity,
        privateKey,
        chainPem: certificateToPem(der) + intermediatesPem,
        rootsPem,
        notBefore,
        notAfter,
        serial: BigInt(`0x${leaf.serialNumber}`).toString(),
      };
    },
    close: () => ca.close(),
  };
}

// A peer whose clock is a little behind must accept a certificate made just now; istio's CA allows the same.
const BACKDATED_MS = 2 * 60_000;

function toSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

import { createHash, X509Certificate } from 'node:crypto';
import { access } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { messageOf } from '../errors.ts';
import { type CaFiles, openCaFolder } from './ca-folder.ts';
import { checkValidity, readCaMaterial } from './ca-material.ts';
import { type CertificateAuthorityClient, workloadCertificate } from './certificate.ts';
import { certificateToPem } from './pem.ts';
import { organizationName, signRootCertificate, signWorkloadCertificate } from './signing.ts';
import { parseSpiffeId } from './spiffe.ts';
import { generateWorkloadKey, privateKeyPem } from './workload-key.ts';

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
  const { dir, ttl, now, changed = () => {}, interval = LOOK_EVERY_MS } = options;
  let files = await openCaFolder(dir, () => createRoot(now()));
  let material = readCaMaterial(files, dir);
  checkValidity(material, now(), dir);
  let complaint = '';
  let looking = false;

  /** Files are replaced one after the other: between two of them the CA may be none, and is looked at again. */
  async function look(): Promise<void> {
    if (looking) return; // a shared file system may take its time
    looking = true;
    try {
      await access(dir); // nothing is made anew where an operator has taken it away
      const found = await openCaFolder(dir, () => Promise.reject(new Error('it is empty')));
      if (!isDeepStrictEqual(found, files)) {
        const next = readCaMaterial(found, dir);
        checkValidity(next, now(), dir);
        files = found;
        material = next;
        changed(null);
      }
      complaint = '';
    } catch (error) {
      if (messageOf(error) !== complaint) changed(error as Error);
      complaint = messageOf(error);
    }
    looking = false;
  }
  const timer = setInterval(() => void look(), interval);
  timer.unref();

  return {
    name: `embedded CA in ${dir}`,
    async sign(identity) {
      parseSpiffeId(identity);
      const at = now();
      // One and the same to the end: another may take its place meanwhile.
      const { issuer, validity, intermediatesPem, rootsPem } = material;
      checkValidity(material, at, dir);
      const notBefore = toSeconds(Math.max(at - BACKDATED_MS, validity.notBefore));
      const notAfter = toSeconds(Math.min(at + ttl, validity.notAfter));
      const { publicKey, privateKey } = await generateWorkloadKey();
      const der = await signWorkloadCertificate(issuer, identity, publicKey, { notBefore, notAfter });
      const leaf = new X509Certificate(der);
      return workloadCertificate({
        identity,
        privateKeyPem: privateKeyPem(privateKey),
        chainPem: certificateToPem(der) + intermediatesPem,
        rootsPem,
        notBefore,
        notAfter,
        serial: BigInt(`0x${leaf.serialNumber}`).toString(),
      });
    },
    close: () => clearInterval(timer),
  };
}

const LOOK_EVERY_MS = 5000;

// A peer whose clock is a little behind must accept a certificate made just now; istio's CA allows the same.
const BACKDATED_MS = 2 * 60_000;
// Agents that share the folder may disagree by more about the time at which the root was made.
const ROOT_BACKDATED_MS = 60 * 60_000;
const ROOT_LIFE_MS = 3650 * 86_400_000;

/** A self-signed root on P-256 that signs workload certificates itself. */
async function createRoot(now: number): Promise<CaFiles> {
  const { publicKey, privateKey } = await generateWorkloadKey();
  const keyIdentifier = createHash('sha256').update(publicKey).digest().subarray(0, 20);
  const issuer = { key: privateKey, name: organizationName('culvert'), keyIdentifier };
  const root = certificateToPem(
    await signRootCertificate(issuer, publicKey, { notBefore: now - ROOT_BACKDATED_MS, notAfter: now + ROOT_LIFE_MS }),
  );
  return { cert: root, key: privateKeyPem(privateKey), chain: root, roots: root };
}

function toSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

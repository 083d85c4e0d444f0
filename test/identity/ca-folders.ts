import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CaFiles } from '../../src/identity/ca-folder.ts';
import type { CertificateAuthorityClient } from '../../src/identity/certificate.ts';
import { openEmbeddedCa } from '../../src/identity/embedded-ca.ts';

const DAY_MS = 86_400_000;
const NAMES: Readonly<Record<keyof CaFiles, string>> = {
  cert: 'ca-cert.pem',
  key: 'ca-key.pem',
  chain: 'cert-chain.pem',
  roots: 'root-cert.pem',
};

/** Opens the CA of a folder with certificates of a day, at the time of the machine unless told otherwise. */
export function openCa(
  dir: string,
  options: { ttl?: number; now?: () => number } = {},
): Promise<CertificateAuthorityClient> {
  return openEmbeddedCa({ dir, ttl: options.ttl ?? DAY_MS, now: options.now ?? Date.now });
}

/** Makes the plugged-in layout in `<folder>/ca` of files in `folder`; several are concatenated, none leaves that file out. */
export function layOut(folder: string, parts: Readonly<Record<keyof CaFiles, readonly string[]>>): string {
  const dir = join(folder, 'ca');
  mkdirSync(dir);
  for (const [file, sources] of Object.entries(parts)) {
    if (sources.length === 0) continue;
    const text = sources.map((source) => readFileSync(join(folder, source), 'utf8')).join('');
    writeFileSync(join(dir, NAMES[file as keyof CaFiles]), text);
  }
  return dir;
}

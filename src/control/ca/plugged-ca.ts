import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CulvertError, messageOf } from '../../errors.ts';
import { CA_FILE_NAMES, type CaFiles, openCaFolder, readCaFolder } from '../../identity/ca-folder.ts';
import { followCa } from '../../identity/followed-ca.ts';
import { splitCertificates } from '../../identity/pem.ts';
import { caFilesOf, createRoot } from '../../identity/self-signed-root.ts';
import type { Logger } from '../../log/logger.ts';
import { type CaSource, checkTrusted } from './ca-source.ts';
import type { TrustGate } from './trust-gate.ts';

export interface PluggedCaOptions {
  readonly dir: string;
  /** Makes a root when the folder is empty; for a control plane without Kubernetes. */
  readonly create: { readonly trustDomain: string; readonly lifeMs: number } | null;
  /** None where nothing is published. */
  readonly gate?: Pick<TrustGate, 'isOpen'>;
  readonly log: Pick<Logger, 'info' | 'error'>;
  /** ms since 1970 */
  readonly now?: () => number;
  /** How often the folder is looked at, in ms. */
  readonly interval?: number;
}

/**
 * A CA in a folder (ROOT_CA_DIR), in either layout of istio's plugged-in CA (node-09 §9.3), usually a mounted Secret. It is
 * followed: what cannot be used leaves the CA of before in force.
 * @throws CulvertError CA_FOLDER_UNUSABLE, CA_FOLDER_INCOMPLETE, CA_INVALID, CA_EXPIRED or CA_NOT_YET_VALID
 */
export async function openPluggedCa(options: PluggedCaOptions): Promise<CaSource> {
  const { dir, create, gate, log, now = Date.now, interval } = options;
  const listeners: (() => void)[] = [];
  let lists = await readLists(dir);
  const ca = followCa({
    where: dir,
    files: await readFiles(dir, () => {
      if (create === null) return readCaFolder(dir);
      return openCaFolder(dir, async () => caFilesOf(await createRoot(create.trustDomain, now(), create.lifeMs)));
    }),
    async read() {
      const files = await readFiles(dir, () => readCaFolder(dir));
      const found = await readLists(dir);
      if (found !== lists) {
        lists = found;
        tell();
      }
      return files;
    },
    now,
    permit(before, next) {
      if (gate?.isOpen() ?? true) checkTrusted(before, next);
    },
    changed(error) {
      if (error === null) {
        log.info('control::ca', 'the CA has changed', { folder: dir });
        tell();
      } else {
        log.error('control::ca', 'the CA cannot be changed, that of before goes on signing', {
          folder: dir,
          error: messageOf(error),
        });
      }
    },
    ...(interval === undefined ? {} : { interval }),
  });

  function tell(): void {
    for (const listener of listeners) listener();
  }

  return {
    where: dir,
    material: () => ca.material(),
    revocationLists: () => lists,
    onChange: (listener) => void listeners.push(listener),
    close: () => ca.close(),
  };
}

/**
 * Whether an operator has put a CA into the folder, complete or not.
 * @throws CulvertError CA_FOLDER_UNUSABLE when that cannot be told: a root of our own beside it would split the mesh
 */
export async function isPlugged(dir: string): Promise<boolean> {
  for (const name of [...Object.values(CA_FILE_NAMES), TLS_LAYOUT.cert]) {
    if ((await textOf(dir, name)) !== null) return true;
  }
  return false;
}

/** The layout of Kubernetes' TLS Secrets, as cert-manager writes them. */
const TLS_LAYOUT = { cert: 'tls.crt', key: 'tls.key', roots: 'ca.crt' } as const;

/** @param istios what reads the other layout */
async function readFiles(dir: string, istios: () => Promise<CaFiles>): Promise<CaFiles> {
  const cert = await textOf(dir, TLS_LAYOUT.cert);
  if (cert === null) return await istios();
  const key = await textOf(dir, TLS_LAYOUT.key);
  const roots = await textOf(dir, TLS_LAYOUT.roots);
  if (key === null || roots === null) {
    const missing = key === null ? TLS_LAYOUT.key : TLS_LAYOUT.roots;
    throw new CulvertError('CA_FOLDER_INCOMPLETE', `the CA folder ${dir} has ${TLS_LAYOUT.cert} but not ${missing}`);
  }
  return { cert: splitCertificates(cert)[0] ?? cert, key, chain: cert, roots };
}

function readLists(dir: string): Promise<string | null> {
  return textOf(dir, 'ca-crl.pem');
}

async function textOf(dir: string, name: string): Promise<string | null> {
  try {
    return await readFile(join(dir, name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    const remedy = 'ROOT_CA_DIR names a folder whose files the control plane may read';
    throw new CulvertError(
      'CA_FOLDER_UNUSABLE',
      `the CA folder ${dir} cannot be used: ${messageOf(error)}; ${remedy}`,
      {
        cause: error,
      },
    );
  }
}

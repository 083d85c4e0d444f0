import { link, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CulvertError, messageOf } from '../errors.ts';

/** The files of istio's plugged-in CA. */
export interface CaFiles {
  /** The certificate that signs. */
  readonly cert: string;
  /** Bytes can be wiped once they are read; text cannot. */
  readonly key: string | Buffer;
  /** The certificates from the signing one up to the root. */
  readonly chain: string;
  readonly roots: string;
}

/** Their names, in the order in which they are put in place: the key decides which of several creators wins. */
export const CA_FILE_NAMES = {
  key: 'ca-key.pem',
  cert: 'ca-cert.pem',
  chain: 'cert-chain.pem',
  roots: 'root-cert.pem',
} as const satisfies Record<keyof CaFiles, string>;

/**
 * Reads the folder of a CA, and fills it first when it holds none of the files. Several processes may do so at once, on a
 * shared file system too: all of them come back with the files of one.
 *
 * A creator writes its files to a folder of its own inside `dir` and then links the key into place. That link succeeds
 * for one creator only. Whoever finds a linked key helps to link the files beside it, so a creator that died between
 * two links leaves nothing half-done.
 * @throws CulvertError CA_FOLDER_UNUSABLE (cannot be read or written) or CA_FOLDER_INCOMPLETE
 */
export async function openCaFolder(dir: string, create: () => Promise<CaFiles>): Promise<CaFiles> {
  try {
    await makeFolder(dir);
    if ((await present(dir)).length === 0) await offer(dir, await create());
  } catch (error) {
    throw unusable(dir, error);
  }
  return await readCaFolder(dir);
}

/**
 * Reads the folder of a CA, and makes nothing where somebody has taken it away.
 * @throws CulvertError CA_FOLDER_UNUSABLE (cannot be read) or CA_FOLDER_INCOMPLETE
 */
export async function readCaFolder(dir: string): Promise<CaFiles> {
  try {
    if ((await present(dir)).length < NAMES.length) await finish(dir);
    const found = await present(dir);
    if (found.length < NAMES.length) throw incomplete(dir, found);
    const read = (name: string) => readFile(join(dir, name), 'utf8');
    const { key, cert, chain, roots } = CA_FILE_NAMES;
    return {
      cert: await read(cert),
      chain: await read(chain),
      roots: await read(roots),
      // Last: when another one cannot be read, nobody would wipe it.
      key: await readFile(join(dir, key)),
    };
  } catch (error) {
    throw unusable(dir, error);
  }
}

const NAMES: readonly string[] = Object.values(CA_FILE_NAMES);
const STAGE_PREFIX = '.new-';

/** Like a recursive mkdir, which in Node never ends where the file system denies a name with ENOENT, as /proc does. */
async function makeFolder(dir: string): Promise<void> {
  const make = () => mkdir(dir, { mode: 0o700 }).catch(unless('EEXIST'));
  try {
    await make();
  } catch (error) {
    const parent = dirname(dir);
    if (codeOf(error) !== 'ENOENT' || parent === dir) throw error;
    await makeFolder(parent);
    await make();
  }
}

async function present(dir: string): Promise<string[]> {
  const entries = new Set(await readdir(dir));
  return NAMES.filter((name) => entries.has(name));
}

/** Puts the files into `dir` unless another creator was first. */
async function offer(dir: string, files: CaFiles): Promise<void> {
  const stage = await mkdtemp(join(dir, STAGE_PREFIX));
  try {
    for (const [file, name] of Object.entries(CA_FILE_NAMES)) {
      const mode = file === 'key' ? 0o600 : 0o644;
      await writeFile(join(stage, name), files[file as keyof CaFiles], { mode, flag: 'wx', flush: true });
    }
    if (await linkUnlessPresent(stage, dir, CA_FILE_NAMES.key)) await linkRest(stage, dir);
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

/** Links what the creator whose key is in place has not linked yet. */
async function finish(dir: string): Promise<void> {
  const key = await inode(join(dir, CA_FILE_NAMES.key));
  if (key === null) return;
  for (const name of await readdir(dir)) {
    const stage = join(dir, name);
    if (!name.startsWith(STAGE_PREFIX) || (await inode(join(stage, CA_FILE_NAMES.key))) !== key) continue;
    await linkRest(stage, dir);
    await rm(stage, { recursive: true, force: true });
  }
}

async function linkRest(stage: string, dir: string): Promise<void> {
  for (const name of NAMES) await linkUnlessPresent(stage, dir, name);
}

/** False when the name was there already, or when the stage is gone because another process has finished. */
async function linkUnlessPresent(stage: string, dir: string, name: string): Promise<boolean> {
  try {
    await link(join(stage, name), join(dir, name));
    return true;
  } catch (error) {
    unless('EEXIST', 'ENOENT')(error);
    return false;
  }
}

/** Swallows errors of the given codes. */
function unless(...codes: readonly string[]): (error: unknown) => void {
  return (error) => {
    if (!codes.includes(codeOf(error))) throw error;
  };
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? '';
}

async function inode(path: string): Promise<bigint | null> {
  const found = await stat(path, { bigint: true }).catch(() => null);
  return found?.ino ?? null;
}

function unusable(dir: string, error: unknown): CulvertError {
  if (error instanceof CulvertError) return error;
  return new CulvertError('CA_FOLDER_UNUSABLE', `the CA folder ${dir} cannot be used: ${messageOf(error)}`, {
    cause: error,
  });
}

function incomplete(dir: string, found: readonly string[]): CulvertError {
  if (found.length === 0) return new CulvertError('CA_FOLDER_INCOMPLETE', `the CA folder ${dir} is empty`);
  const missing = NAMES.filter((name) => !found.includes(name));
  return new CulvertError(
    'CA_FOLDER_INCOMPLETE',
    `the CA folder ${dir} has ${found.join(', ')} but not ${missing.join(', ')}; give it all of ${NAMES.join(', ')}, or none of them to have a new CA made`,
  );
}

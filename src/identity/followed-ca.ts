import { createHash } from 'node:crypto';
import { messageOf } from '../errors.ts';
import type { CaFiles } from './ca-folder.ts';
import { type CaMaterial, checkValidity, readCaMaterial } from './ca-material.ts';

export interface FollowedCa {
  /** What signs now. */
  material(): CaMaterial;
  close(): void;
}

export interface FollowedCaOptions {
  /** For errors. */
  readonly where: string;
  readonly files: CaFiles;
  /** The files as they are now. */
  readonly read: () => Promise<CaFiles>;
  /** Time in ms since 1970. */
  readonly now: () => number;
  /** Told when there is another CA that can be used, and when there is one that cannot: that of before stays. */
  readonly changed: (error: Error | null) => void;
  /** Throws when the CA of before must not be replaced by this one. */
  readonly permit?: (before: CaMaterial, next: CaMaterial) => void;
  /** How often the files are looked at, in ms. */
  readonly interval?: number;
}

/** A CA whose files may change. @throws CulvertError CA_INVALID, CA_EXPIRED or CA_NOT_YET_VALID */
export function followCa(options: FollowedCaOptions): FollowedCa {
  const { where, read, now, changed, permit = () => {}, interval = LOOK_EVERY_MS } = options;
  let seen = digestOf(options.files);
  let material = readOnce(options.files, where);
  checkValidity(material, now(), where);
  let complaint = '';
  let looking = false;

  /** Files are replaced one after the other: between two of them the CA may be none, and is looked at again. */
  async function look(): Promise<void> {
    if (looking) return; // a shared file system may take its time
    looking = true;
    try {
      const found = await read();
      const digest = digestOf(found);
      if (digest === seen) wipe(found);
      else {
        const next = readOnce(found, where);
        checkValidity(next, now(), where);
        permit(material, next);
        seen = digest;
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
  return { material: () => material, close: () => clearInterval(timer) };
}

/** Kept instead of the files, so that the text of the key does not stay in memory. */
function digestOf({ cert, key, chain, roots }: CaFiles): string {
  const hash = createHash('sha256');
  for (const file of [cert, key, chain, roots]) hash.update(`${file.length} `).update(file);
  return hash.digest('base64');
}

/** Of files that cannot be used too, as between two replacements: each look would leave another copy of the key. */
function readOnce(files: CaFiles, where: string): CaMaterial {
  try {
    return readCaMaterial(files, where);
  } finally {
    wipe(files);
  }
}

function wipe({ key }: CaFiles): void {
  if (typeof key !== 'string') key.fill(0);
}

const LOOK_EVERY_MS = 5000;

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { ConfFile } from './conflist.ts';

/**
 * Replaces a file in one step, so that a reader sees the old one or the new one whole, also after a power failure.
 * @throws the errno of what failed
 */
export function replaceFile(path: string, content: string | Uint8Array, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const prefix = `.${basename(path)}.tmp.`;
  // What an earlier attempt left when it was killed.
  for (const name of readdirSync(dirname(path))) if (name.startsWith(prefix)) removeFile(join(dirname(path), name));
  const staged = join(dirname(path), `${prefix}${process.pid}`);
  try {
    const fd = openSync(staged, 'wx', mode);
    try {
      writeFileSync(fd, content);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(staged, path);
  } catch (error) {
    removeFile(staged);
    throw error;
  }
}

/** Null when there is no such file. */
export function readText(path: string): string | null {
  return orNull(() => readFileSync(path, 'utf8'));
}

export function readBytes(path: string): Buffer | null {
  return orNull(() => readFileSync(path));
}

/**
 * The CNI configurations of a folder. Other plugins keep folders and files of their own beside them (whereabouts.d); what
 * is no regular file, or cannot be read, is no configuration. @throws the errno when the folder cannot be listed
 */
export function readConfFiles(folder: string): ConfFile[] {
  return readdirSync(folder)
    .filter((name) => /\.conf(list)?$/.test(name))
    .flatMap((name) => {
      const path = join(folder, name);
      try {
        // Never opened when it is something else: a FIFO would wait for a writer.
        return statSync(path).isFile() ? [{ name, content: readFileSync(path, 'utf8') }] : [];
      } catch (error) {
        if (['ENOENT', 'EISDIR', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
        throw error;
      }
    });
}

/** Permission bits; null when there is no such file. */
export function modeOf(path: string): number | null {
  return orNull(() => statSync(path).mode & 0o777);
}

/** Returns whether there was one. */
export function removeFile(path: string): boolean {
  return orNull(() => unlinkSync(path)) !== null;
}

function orNull<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

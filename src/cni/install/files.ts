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

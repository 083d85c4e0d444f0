import { createHash } from 'node:crypto';
import { readFile, realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { watchFolders } from './watch-folders.ts';

/** What is done with a file that is followed. Calls do not overlap. */
export interface FileUser {
  /** The content is new. What it throws goes to `failed`. */
  use(content: Buffer): void | Promise<void>;
  /** The file cannot be read or used; told once per reason and content. `unreadable` tells which. */
  failed(error: unknown, unreadable: boolean): void;
}

export interface FollowedFile {
  close(): void;
}

/**
 * Reads a file now, and again whenever it has changed, well within a second. Resolves after the first attempt. A file
 * that is not there is waited for.
 */
export async function followFile(path: string, user: FileUser): Promise<FollowedFile> {
  let closed = false;
  /** Digest of the content, or the message why there was none. */
  let lastSeen: string | null = null;

  async function load(): Promise<void> {
    let content: Buffer;
    try {
      // A pipe or a device may never end.
      if (!(await stat(path)).isFile()) throw new Error(`${path} is not a regular file`);
      content = await readFile(path);
    } catch (error) {
      const reason = String(error);
      if (!closed && reason !== lastSeen) user.failed(error, true);
      lastSeen = reason;
      return;
    }
    // Events of other files of the directory, and content that was refused, end here.
    const digest = createHash('sha256').update(content).digest('base64');
    if (closed || digest === lastSeen) return;
    lastSeen = digest;
    try {
      await user.use(content);
    } catch (error) {
      if (!closed) user.failed(error, false);
    }
  }

  // The directories rather than the file: an editor replaces the file by a rename, and the kubelet replaces a ConfigMap by
  // swapping a link beside it.
  const folders = async () => [dirname(path), dirname(await realpath(path).catch(() => path))];
  const watched = await watchFolders(folders, load);
  return {
    close() {
      closed = true;
      watched.close();
    },
  };
}

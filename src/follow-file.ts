import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';

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
  let watchers: FSWatcher[] = [];
  let timer: NodeJS.Timeout | null = null;
  let firstEventAt: number | null = null;
  let closed = false;
  /** Digest of the content, or the message why there was none. */
  let lastSeen: string | null = null;

  async function load(): Promise<void> {
    let content: Buffer;
    try {
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

  /**
   * Watches the directories rather than the file: an editor replaces the file by a rename, and the kubelet replaces a
   * ConfigMap by swapping a link beside it. Done anew before each load, because both directories may have been replaced.
   */
  async function rearm(): Promise<void> {
    const folders = new Set([dirname(path), dirname(await realpath(path).catch(() => path))]);
    const before = watchers;
    watchers = [];
    try {
      if (!closed) for (const folder of folders) watchers.push(watch(folder, schedule).on('error', schedule));
    } catch {
      // It is gone, or watches are used up.
    }
    for (const watcher of before) watcher.close();
  }

  function schedule(): void {
    if (closed) return;
    const now = Date.now();
    firstEventAt ??= now;
    if (timer !== null) clearTimeout(timer);
    const wait = Math.max(0, Math.min(QUIET_MS, firstEventAt + LONGEST_WAIT_MS - now));
    timer = setTimeout(() => void reload(), wait);
  }

  let loading: Promise<void> = Promise.resolve();
  function reload(): Promise<void> {
    timer = null;
    firstEventAt = null;
    loading = loading.then(reloadOnce);
    return loading;
  }

  async function reloadOnce(): Promise<void> {
    if (closed) return;
    await rearm();
    await load();
    // Without a watcher no event will come, so look again by the clock.
    if (!closed && watchers.length === 0 && timer === null) timer = setTimeout(() => void reload(), RETRY_MS);
  }

  await reload();
  return {
    close() {
      closed = true;
      if (timer !== null) clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
    },
  };
}

/** A file is written in several steps; half of it may well be valid. */
const QUIET_MS = 100;
/** Under constant writing the file is still read this often. */
const LONGEST_WAIT_MS = 500;
const RETRY_MS = 1000;

import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { CulvertError, messageOf } from '../errors.ts';
import { type LocalMesh, loadLocal } from './local-file.ts';
import type { MeshStore } from './mesh-state.ts';
import { serviceKey } from './types.ts';

/** What the watcher tells its owner. */
export interface LocalFileObserver {
  /** The file was read and the store now holds what it says; `changed` counts the resources that differ. */
  applied(changed: number): void;
  /** The file cannot be used; the store keeps what the last good one said. */
  rejected(error: CulvertError): void;
}

export interface LocalFileWatch {
  close(): void;
}

/**
 * Loads a local file into the store and keeps following it: an edit is applied as a difference, well within a second.
 *
 * @throws CulvertError LOCAL_CONFIG_INVALID or LOCAL_CONFIG_UNREADABLE when the first load fails; later failures go to
 *   `observer.rejected`
 */
export async function watchLocalFile(
  path: string,
  store: Pick<MeshStore, 'apply'>,
  observer: LocalFileObserver,
): Promise<LocalFileWatch> {
  let current: LocalMesh = { workloads: [], services: [], policies: [] };
  let watchers: FSWatcher[] = [];
  let timer: NodeJS.Timeout | null = null;
  let firstEventAt: number | null = null;
  let closed = false;
  /** Digest of the text, or the message why there was none. */
  let lastSeen: string | null = null;

  /** Reads the file and applies what differs from the last good state. */
  async function load(): Promise<void> {
    const text = await read(path);
    // Events of other files of the directory, and an invalid file that was reported, end here.
    const digest = createHash('sha256').update(text).digest('base64');
    if (digest === lastSeen) return;
    lastSeen = digest;
    const next = await loadLocal(text, path);
    if (closed) return;
    const update = difference(current, next);
    current = next;
    store.apply(update);
    observer.applied(sizeOf(update));
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
    } finally {
      for (const watcher of before) watcher.close();
    }
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
    try {
      await rearm();
      await load();
    } catch (error) {
      if (closed) return;
      const rejection = error instanceof CulvertError ? error : unreadable(path, error);
      if (rejection.message !== lastSeen) observer.rejected(rejection);
      if (rejection.code === 'LOCAL_CONFIG_UNREADABLE') lastSeen = rejection.message;
      // Without a watcher no event will come, so look again by the clock.
      if (watchers.length === 0 && timer === null) timer = setTimeout(() => void reload(), RETRY_MS);
    }
  }

  function close(): void {
    closed = true;
    if (timer !== null) clearTimeout(timer);
    for (const watcher of watchers) watcher.close();
  }

  try {
    await rearm();
    await load();
  } catch (error) {
    close();
    throw error instanceof CulvertError ? error : unreadable(path, error);
  }
  return { close };
}

/** A file is written in several steps; half of it may well be valid. */
const QUIET_MS = 100;
/** Under constant writing the file is still read this often. */
const LONGEST_WAIT_MS = 500;
const RETRY_MS = 1000;

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, cause: unknown): CulvertError {
  return new CulvertError(
    'LOCAL_CONFIG_UNREADABLE',
    `local configuration ${path} cannot be read: ${messageOf(cause)}`,
    {
      cause,
    },
  );
}

/** What has to be applied to get from one file to another. */
function difference(before: LocalMesh, after: LocalMesh) {
  const workloads = compare(before.workloads, after.workloads, ({ workload }) => workload.uid);
  const services = compare(before.services, after.services, serviceKey);
  const policies = compare(before.policies, after.policies, ([key]) => key);
  return {
    workloads: workloads.changed,
    services: services.changed,
    policies: policies.changed,
    removedWorkloads: workloads.removed,
    removedServices: services.removed,
    removedPolicies: policies.removed,
  };
}

function sizeOf(update: ReturnType<typeof difference>): number {
  return Object.values(update).reduce((sum, part) => sum + part.length, 0);
}

function compare<T>(before: readonly T[], after: readonly T[], keyOf: (item: T) => string) {
  const known = new Map(before.map((item) => [keyOf(item), item]));
  const changed = after.filter((item) => !isDeepStrictEqual(known.get(keyOf(item)), item));
  for (const item of after) known.delete(keyOf(item));
  return { changed, removed: [...known.keys()] };
}

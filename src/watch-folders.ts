import { type FSWatcher, watch } from 'node:fs';

/**
 * Loads something from files now, and again well within a second after any of their folders has changed. Loads do not
 * overlap. Resolves after the first.
 * @param folders where to watch; asked before each load, because folders may have been replaced. One that cannot be watched
 *   is looked at again every second.
 */
export async function watchFolders(
  folders: () => Promise<Iterable<string>>,
  load: () => Promise<void>,
): Promise<{ close(): void }> {
  let watchers: FSWatcher[] = [];
  let timer: NodeJS.Timeout | null = null;
  let firstEventAt: number | null = null;
  let closed = false;

  async function rearm(): Promise<void> {
    const wanted = new Set(await folders());
    const before = watchers;
    watchers = [];
    try {
      if (!closed) for (const folder of wanted) watchers.push(watch(folder, schedule).on('error', schedule));
    } catch {
      // It is gone, or watches are used up.
    }
    for (const watcher of before) watcher.close();
  }

  function schedule(): void {
    if (closed) return;
    const now = performance.now();
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
/** Under constant writing the files are still read this often. */
const LONGEST_WAIT_MS = 500;
const RETRY_MS = 1000;

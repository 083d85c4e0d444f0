import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import { CulvertError, messageOf } from '../../errors.ts';
import type { Logger } from '../../log/logger.ts';
import {
  type ConfFile,
  chain,
  isChained,
  PLUGIN_TYPE,
  type PluginEntry,
  primaryConf,
  standalone,
  unchain,
} from './conflist.ts';
import { modeOf, readBytes, readConfFiles, readText, removeFile, replaceFile } from './files.ts';

/**
 * Keeps the CNI plugin installed on the node: its executable, and its entry at the end of the first CNI configuration
 * (spec node-03 §3.6). Whoever changes either finds it repaired. What was there before is remembered, so that an
 * uninstall gives back the very same file.
 */
export interface Installer {
  /** The plugin is in place. */
  isInstalled(): boolean;
  /** Stops watching; everything stays. */
  close(): void;
  /** Removes the entry, then the executable. @throws CulvertError 'UNINSTALL_FAILED' */
  uninstall(): void;
}

/** Where the plugin is installed, and how. */
export interface Place {
  readonly binDir: string;
  readonly confDir: string;
  readonly confName: string | null;
  readonly chained: boolean;
  readonly groupRead: boolean;
  /** Where the original configuration is remembered. */
  readonly stateDir: string;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
}

export interface InstallerOptions extends Place {
  /** The executable to be installed. */
  readonly plugin: string;
  readonly entry: PluginEntry;
  readonly onInstall?: (result: 'SUCCESS' | 'COPY_BINARIES_FAILURE' | 'CREATE_CNI_CONFIG_FAILURE') => void;
  /** How often everything is checked without being told of a change, in ms. */
  readonly checkMs?: number;
}

/** Changes that come together are looked at together. */
const SETTLE_MS = 100;
/** Two programs that undo each other's work must not keep the node busy. */
const MIN_PAUSE_MS = 1000;
const MANY_REPAIRS = 5;

export function startInstaller(options: InstallerOptions): Installer {
  const { binDir, confDir, log, onInstall = () => {}, checkMs = 60_000 } = options;
  const target = join(binDir, PLUGIN_TYPE);
  const watchers: FSWatcher[] = [];
  let installed = false;
  let lastRepair = Number.NEGATIVE_INFINITY;
  let repairs = 0;
  let complaint = '';
  let due: NodeJS.Timeout | null = null;
  const timer = setInterval(check, checkMs);
  check();

  return {
    isInstalled: () => installed,
    close,
    uninstall() {
      close();
      uninstallPlugin(options);
      installed = false;
    },
  };

  function close(): void {
    clearInterval(timer);
    if (due !== null) clearTimeout(due);
    stopWatching();
  }

  function stopWatching(): void {
    for (const watcher of watchers.splice(0)) watcher.close();
  }

  function check(): void {
    // Before the look, so that a change after it is noticed.
    watchFolders();
    let step: 'COPY_BINARIES_FAILURE' | 'CREATE_CNI_CONFIG_FAILURE' = 'COPY_BINARIES_FAILURE';
    try {
      const copied = copyPlugin();
      step = 'CREATE_CNI_CONFIG_FAILURE';
      const written = writeConf();
      if (copied || written) noteRepair();
      if (!installed || copied || written) onInstall('SUCCESS');
      installed = true;
      complaint = '';
    } catch (error) {
      installed = false;
      onInstall(step);
      // Said once; the state is in the readiness and in the metrics.
      if (messageOf(error) !== complaint) log.error('install', 'CNI plugin not installed', { error: messageOf(error) });
      complaint = messageOf(error);
    }
  }

  function watchFolders(): void {
    stopWatching();
    for (const folder of [confDir, binDir]) {
      try {
        const watcher = watch(folder, checkSoon);
        watcher.on('error', checkSoon);
        watchers.push(watcher);
      } catch {
        // It does not exist, or there are too many watches: the timer does it.
      }
    }
  }

  function checkSoon(): void {
    if (due !== null) return;
    const wait = Math.max(SETTLE_MS, lastRepair + MIN_PAUSE_MS - performance.now());
    due = setTimeout(() => {
      due = null;
      check();
    }, wait);
  }

  function noteRepair(): void {
    const now = performance.now();
    repairs = now - lastRepair < 10 * MIN_PAUSE_MS ? repairs + 1 : 0;
    lastRepair = now;
    if (repairs !== MANY_REPAIRS) return;
    const hint = 'another program keeps changing the CNI configuration (Cilium: set cni.exclusive=false)';
    log.warn('install', 'the CNI plugin had to be installed again and again', { hint });
  }

  /** Returns whether the executable was not up to date. */
  function copyPlugin(): boolean {
    const source = readBytes(options.plugin);
    if (source === null) throw new CulvertError('INSTALL_FAILED', `there is no plugin at ${options.plugin}`);
    if (readBytes(target)?.equals(source) && modeOf(target) === 0o755) return false;
    try {
      replaceFile(target, source, 0o755);
    } catch (cause) {
      const hint = (cause as NodeJS.ErrnoException).code === 'EROFS' ? ': is cniBinDir that of this platform?' : '';
      throw new CulvertError('INSTALL_FAILED', `cannot write ${target}: ${messageOf(cause)}${hint}`, { cause });
    }
    log.info('install', 'CNI plugin copied', { path: target });
    return true;
  }

  /** Returns whether the configuration was not up to date. */
  function writeConf(): boolean {
    const { entry, confName, chained } = options;
    if (!chained) {
      const file = standalone(confName ?? `YYY-${PLUGIN_TYPE}.conf`, entry);
      const path = join(confDir, file.name);
      if (readText(path) === file.content) return false;
      replaceFile(path, file.content, newMode(options.groupRead));
      return true;
    }
    const primary = primaryConf(readConfFiles(confDir), confName);
    if (primary === null) {
      const what = confName === null ? 'no CNI configuration' : `no CNI configuration ${confName}`;
      throw new CulvertError('INSTALL_WAITS', `${what} in ${confDir} yet: waiting for the network of the cluster`);
    }
    if (isChained(primary, entry)) return false;
    const result = chain(primary, entry);
    remember(primary, result);
    replaceFile(
      join(confDir, result.name),
      result.content,
      modeOf(join(confDir, primary.name)) ?? newMode(options.groupRead),
    );
    if (result.name !== primary.name) removeFile(join(confDir, primary.name));
    log.info('install', 'CNI plugin chained into the configuration', { file: result.name });
    return true;
  }

  /** A file that has the plugin already is what an earlier version wrote: its original is known. */
  function remember(original: ConfFile, result: ConfFile): void {
    const before = readRecord(options.stateDir);
    const known = before !== null && unchain(original) !== null;
    const text = JSON.stringify({ original: known ? before.original : original, written: result });
    replaceFile(recordIn(options.stateDir), `${text}\n`, 0o600);
  }
}

/**
 * Removes the entry, then the executable; the original configuration comes back.
 * @throws CulvertError 'UNINSTALL_FAILED'
 */
export function uninstallPlugin(place: Place): void {
  try {
    restoreConf(place);
    removeFile(join(place.binDir, PLUGIN_TYPE));
    removeFile(recordIn(place.stateDir));
  } catch (cause) {
    throw new CulvertError('UNINSTALL_FAILED', `cannot remove the CNI plugin: ${messageOf(cause)}`, { cause });
  }
  place.log.info('install', 'CNI plugin removed from the node');
}

function recordIn(stateDir: string): string {
  return join(stateDir, 'cni-original.json');
}

function newMode(groupRead: boolean): number {
  return groupRead ? 0o640 : 0o600;
}

function readRecord(stateDir: string): { original: ConfFile; written: ConfFile } | null {
  const text = readText(recordIn(stateDir));
  if (text === null) return null;
  try {
    const { original, written } = JSON.parse(text) as { original: ConfFile; written: ConfFile };
    // File names: a record that was tampered with must not lead out of the folder.
    const usable = [original, written].every((file) => /^[\w][\w.-]*$/.test(file.name) && file.content.length > 0);
    return usable ? { original, written } : null;
  } catch {
    return null;
  }
}

function restoreConf({ confDir, confName, chained, groupRead, stateDir }: Place): void {
  // An earlier version may have been chained all the same.
  if (!chained) removeFile(join(confDir, confName ?? `YYY-${PLUGIN_TYPE}.conf`));
  const known = readRecord(stateDir);
  for (const file of readConfFiles(confDir)) {
    let rest: ConfFile | null;
    try {
      rest = unchain(file);
    } catch {
      continue; // Not a configuration of anybody's.
    }
    if (rest === null) continue;
    const path = join(confDir, file.name);
    const mode = modeOf(path) ?? newMode(groupRead);
    const untouched = known !== null && known.written.name === file.name && known.written.content === file.content;
    const original = untouched && unchainedQuietly(known.original) ? known.original : rest;
    replaceFile(join(confDir, original.name), original.content, mode);
    if (original.name !== file.name) removeFile(path);
  }
}

/** True for a configuration without the plugin. */
function unchainedQuietly(file: ConfFile): boolean {
  try {
    return unchain(file) === null;
  } catch {
    return false;
  }
}

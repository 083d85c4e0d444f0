import { createHash } from 'node:crypto';
import { readdir, readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { CulvertError, messageOf } from '../../errors.ts';
import { metadataOf, text } from '../../kube/object.ts';
import { createObjectTable, type ObjectTable } from '../../kube/object-table.ts';
import type { Logger } from '../../log/logger.ts';
import { watchFolders } from '../../watch-folders.ts';
import type { Kind, ObjectListener, ObjectSource } from '../kinds.ts';
import { createBatch } from './batch.ts';
import { ManifestError, type ManifestObject, readManifest } from './manifest.ts';
import { generationOf, keyOf, readerOf } from './of-kind.ts';

export interface FolderSource extends ObjectSource {
  /** Files that cannot be used as they are now, each with line and column where they are known. */
  problems(): readonly string[];
}

export interface FolderSourceOptions {
  readonly folder: string;
  readonly kinds: readonly Kind[];
  readonly listener: ObjectListener;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
}

interface Known {
  readonly digest: string;
  readonly objects: readonly FileObject[];
}

interface FileObject {
  readonly kind: Kind;
  readonly key: string;
  readonly object: unknown;
  /** `file:line:column` */
  readonly place: string;
}

/**
 * Follows the files *.yaml, *.yml and *.json of a folder, not of the folders in it. A file that cannot be read leaves its
 * objects as they were; objects are gone when their file is gone, or is good and without them.
 * @throws CulvertError FOLDER_UNREADABLE or FOLDER_INVALID when the folder or one of its files cannot be read at the start:
 *   without the policies of that file, somebody would get rights
 */
export async function watchFolder(options: FolderSourceOptions): Promise<FolderSource> {
  const { folder, kinds, listener, log } = options;
  const batch = createBatch(listener);
  const tables = new Map(kinds.map((kind) => [kind, tableOf(kind)]));
  /** Where the version of an object comes from that is being read. */
  let place = '';
  let files = new Map<string, Known>();
  let problems: readonly string[] = [];
  /** Files of which not even an earlier version is known. */
  const unusable = new Set<string>();

  function tableOf(kind: Kind): ObjectTable<unknown> {
    return createObjectTable<unknown>({
      ...readerOf(kind),
      onChange: (before, after, key) => batch.changed({ kind, key, before, after }),
      onRejected(object, key, error) {
        const reason = `${place}: ${messageOf(error)}`;
        batch.rejected({ kind, key, generation: generationOf(object), reason });
      },
    });
  }

  async function load(): Promise<void> {
    const found: string[] = [];
    let names: string[];
    try {
      names = (await readdir(folder)).filter((name) => FILE.test(name)).sort();
    } catch (cause) {
      return report([messageOf(unreadable(folder, cause))]);
    }
    const read = new Map<string, Known>();
    for (const name of names) {
      const known = await readObjects(name, files.get(name), found);
      if (known === null) unusable.add(name);
      else read.set(name, known);
    }
    files = read;
    apply(found);
    report(found);
  }

  /** Null when nothing is known of the file, not even from before. */
  async function readObjects(name: string, before: Known | undefined, found: string[]): Promise<Known | null> {
    const path = join(folder, name);
    try {
      const content = await readFile(path, 'utf8');
      const digest = digestOf(content);
      if (before?.digest === digest) return before;
      const objects = (await readManifest(content)).flatMap((entry) => locate(path, entry) ?? []);
      return { digest, objects };
    } catch (error) {
      const where = error instanceof ManifestError ? `:${error.line}:${error.column}` : '';
      found.push(`${path}${where}: ${messageOf(error)}`);
      return before ?? null;
    }
  }

  function locate(path: string, { object, line, column }: ManifestObject): FileObject | null {
    const at = `${path}:${line}:${column}`;
    const kind = kinds.find(({ kind, group }) => kind === object.kind && group === groupOf(text(object.apiVersion)));
    if (kind === undefined) {
      log.warn('control', 'object of a kind that is not used here', { at, kind: text(object.kind) });
      return null;
    }
    const metadata = metadataOf(object);
    if (text(metadata.name) === '')
      throw new ManifestError(`metadata.name of a ${kind.kind} is missing or no text`, line, column);
    // As kubectl has it.
    const namespace = kind.namespaced ? { namespace: text(metadata.namespace) || 'default' } : {};
    const complete = { ...object, metadata: { ...metadata, ...namespace } };
    return { kind, key: keyOf(kind, complete), object: complete, place: at };
  }

  /** Brings the tables in step with the files. */
  function apply(found: string[]): void {
    const places = new Map(kinds.map((kind) => [kind, new Map<string, string>()]));
    for (const { kind, key, object, place: at } of [...files.values()].flatMap(({ objects }) => objects)) {
      const seen = places.get(kind)!;
      const first = seen.get(key);
      if (first !== undefined) {
        found.push(`${at}: ${kind.kind} ${key} is also at ${first}, which counts`);
        continue;
      }
      seen.set(key, at);
      place = at;
      tables.get(kind)!.put(key, digestOf(JSON.stringify(object)), object);
    }
    for (const [kind, table] of tables) {
      for (const key of [...table.keys()]) if (!places.get(kind)!.has(key)) table.drop(key);
    }
  }

  function report(found: readonly string[]): void {
    for (const problem of found) if (!problems.includes(problem)) log.error('control', 'not used', { problem });
    if (problems.length > 0 && found.length === 0) log.info('control', 'all files are good again', { folder });
    problems = found;
  }

  await readdir(folder).catch((cause) => {
    throw unreadable(folder, cause);
  });
  // A folder of a ConfigMap holds links, and its files are replaced by swapping one of them.
  const watched = await watchFolders(async () => [folder, await realpath(folder).catch(() => folder)], load);
  if (unusable.size > 0) {
    watched.close();
    throw new CulvertError('FOLDER_INVALID', problems.join('\n'));
  }
  batch.flush();
  log.info('control', 'read the objects of a folder', { folder, files: files.size });
  return {
    synced: Promise.resolve(),
    problems: () => problems,
    close: () => watched.close(),
  };
}

function unreadable(folder: string, cause: unknown): CulvertError {
  return new CulvertError('FOLDER_UNREADABLE', `the folder ${folder} cannot be read: ${messageOf(cause)}`, { cause });
}

const FILE = /^[^.].*\.(ya?ml|json)$/;

function digestOf(content: string): string {
  return createHash('sha256').update(content).digest('base64');
}

function groupOf(apiVersion: string): string {
  return apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
}

import { isUtf8 } from 'node:buffer';
import { isDeepStrictEqual } from 'node:util';
import { CulvertError, messageOf } from '../errors.ts';
import { followFile } from '../follow-file.ts';
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
  let current: LocalMesh = NOTHING;
  /** Why the first load failed; undefined once it has not. */
  let firstFailure: CulvertError | null | undefined = null;

  const followed = await followFile(path, {
    async use(content) {
      const next = await loadLocal(textOf(content, path), path);
      // A map in braces cannot be read before its end is there. At the start a mesh of empty lists may be meant as well;
      // a file without a word may not.
      const isCut = firstFailure === undefined ? !isNothing(current) && next.begin !== '{' : next.begin === '';
      if (isNothing(next) && isCut) throw truncated(path);
      // A difference is applied, so that what stays the same is left alone.
      const update = difference(current, next);
      current = next;
      store.apply(update);
      observer.applied(sizeOf(update));
    },
    failed(error, isUnreadable) {
      const rejection = isUnreadable || !(error instanceof CulvertError) ? unreadable(path, error) : error;
      if (firstFailure === undefined) observer.rejected(rejection);
      else firstFailure = rejection;
    },
  });
  if (firstFailure !== null) {
    followed.close();
    throw firstFailure;
  }
  firstFailure = undefined;
  return followed;
}

const NOTHING: LocalMesh = { workloads: [], services: [], policies: [] };

function isNothing({ workloads, services, policies }: LocalMesh): boolean {
  return workloads.length + services.length + policies.length === 0;
}

/** A name with other characters in the place of some would be another name, and match nothing; comments may be anything. */
function textOf(content: Buffer, path: string): string {
  if (!isUtf8(content) && !isUtf8(withoutComments(content)))
    throw new CulvertError('LOCAL_CONFIG_INVALID', `${path}: this is not text in UTF-8`);
  return content.toString();
}

/** The bytes without lines that are comments. */
function withoutComments(content: Buffer): Buffer {
  return Buffer.from(content.toString('latin1').replace(/^[ \t]*#.*$/gm, ''), 'latin1');
}

/** A full disk, or a writer that has only begun. */
function truncated(path: string): CulvertError {
  return new CulvertError('LOCAL_CONFIG_INVALID', `${path}: the file is empty; to empty the mesh, write {}`);
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

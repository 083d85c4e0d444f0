/**
 * Kubernetes objects → mesh state. Objects and what they select are filed as they come; the resources that depend on what has
 * changed are worked out afterwards, in slices, so that many changes of one turn are one piece of work.
 */
import { messageOf } from '../../errors.ts';
import { runInSlices } from '../../slices.ts';
import type { Kind, ObjectChange } from '../kinds.ts';
import { kindsOfRevision } from '../objects/of-revision.ts';
import type { MeshResources } from '../resources.ts';
import { createDerivation, type OnFailure } from './derivation.ts';
import { MeshObjects } from './mesh-objects.ts';
import { createResourceTable } from './resource-table.ts';
import type { MeshSettings } from './settings.ts';
import { createStatusBook, type Statuses } from './statuses.ts';

export interface Mesh {
  /** What has to be told about. To these, objects of another revision are of no interest. */
  readonly kinds: readonly Kind[];
  readonly resources: MeshResources;
  readonly statuses: Statuses;
  /** Takes changes in; of a kind that is not known they are ignored. The resources follow within the turns after this one. */
  apply(changes: readonly ObjectChange[]): void;
  /** Resolves when the resources have caught up with all that was applied. */
  settled(): Promise<void>;
}

/** @throws Error when a pool of addresses is no CIDR block */
export function createMesh(settings: MeshSettings, onFailure: OnFailure = warn): Mesh {
  const table = createResourceTable();
  const statuses = createStatusBook();
  const objects = new MeshObjects(settings);
  const derivation = createDerivation(objects, settings, table, statuses, onFailure);
  let state: 'settled' | 'scheduled' | 'working' = 'settled';
  let waiting: (() => void)[] = [];

  function work(): void {
    state = 'working';
    let caughtUp = taken();
    runInSlices(derivation.round(), () => {
      table.announce();
      statuses.announce();
      if (derivation.isDone()) {
        state = 'settled';
        caughtUp = [...caughtUp, ...taken()];
      } else setImmediate(work);
      for (const resolve of caughtUp) resolve();
    });
  }

  function taken(): (() => void)[] {
    const all = waiting;
    waiting = [];
    return all;
  }

  return {
    kinds: kindsOfRevision(settings.revision),
    resources: table,
    statuses,
    apply(changes) {
      for (const change of changes) {
        objects.apply(change);
        if (change.after === null) statuses.forget(change.kind, change.key);
      }
      if (state !== 'settled') return;
      state = 'scheduled';
      setImmediate(work);
    },
    settled: () => (state === 'settled' ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
  };
}

function warn(name: string, error: unknown): void {
  process.emitWarning(`${name} keeps its resources as they are: ${messageOf(error)}`);
}

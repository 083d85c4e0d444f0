import { messageOf } from '../../errors.ts';
import { type KubeApi, KubeError } from '../../kube/api.ts';
import type { Logger } from '../../log/logger.ts';
import { createCaretaker } from '../caretaker.ts';
import type { Lease } from '../lease.ts';
import type { Statuses } from '../mesh/statuses.ts';
import type { Rejections } from '../rejections.ts';
import { staleVerdicts } from './stale-verdicts.ts';
import { addressWrite, conditionWrite, rejectionWrite, retraction, type StatusWrite } from './writes.ts';

export interface StatusWriterOptions {
  readonly api: Pick<KubeApi, 'get' | 'apply' | 'mergePatch'>;
  /** Only its holder writes. */
  readonly lease: Lease;
  readonly statuses: Statuses;
  readonly rejections: Rejections;
  /** "" for one that takes the objects of all. */
  readonly revision: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly now?: () => number;
  /** How often it is looked anyway, in ms. */
  readonly checkMs?: number;
}

/**
 * Writes to objects what has become of them. A write that does not last, because somebody else writes the same, is repeated
 * once a minute at most.
 */
export function startStatusWriter(options: StatusWriterOptions): { close(): void } {
  const { api, lease, statuses, rejections, revision, log, now = Date.now, checkMs = REPEAT_MS } = options;
  /** What was written last, by what it is about. */
  const written = new Map<string, { readonly content: string; readonly at: number }>();
  /** Objects that are not rejected any more, or were when another process wrote. */
  const retractions = new Map<string, StatusWrite>();
  let hasLookedForStale = false;
  const caretaker = createCaretaker(writeAll, {
    everyMs: checkMs,
    failed(error, waitMs) {
      log.warn('control', 'the status of objects cannot be written', { error: messageOf(error), wait_ms: waitMs });
    },
  });
  statuses.onPending(() => caretaker.tend());
  lease.onChange(() => {
    hasLookedForStale = false;
    caretaker.tend();
  });
  rejections.onChange((object, isRejected) => {
    const write = retraction(object.kind, object.key);
    if (write !== null) {
      if (isRejected) retractions.delete(write.about);
      else retractions.set(write.about, write);
    }
    caretaker.tend();
  });
  caretaker.tend();
  return caretaker;

  async function writeAll(): Promise<void> {
    if (!lease.held()) return;
    if (!hasLookedForStale) {
      const rejected = new Set(rejections.list().map(({ kind, key }) => `${kind.kind} ${key}`));
      for (const write of await staleVerdicts(api, rejected, revision)) retractions.set(write.about, write);
      hasLookedForStale = true;
    }
    const due = [...pending()].filter(isDue);
    let next = 0;
    // A few at a time: a thousand policies at the start must neither storm the API server nor take for ever.
    let failure: Error | null = null;
    const workers = Array.from({ length: PARALLEL }, async () => {
      for (let write = due[next++]; write !== undefined && lease.held(); write = due[next++]) {
        try {
          await perform(write);
        } catch (error) {
          // One object that cannot be written must not keep the others from it: each attempt comes upon it again.
          failure ??= new Error(`${write.about}: ${messageOf(error)}`, { cause: error });
        }
      }
    });
    await Promise.all(workers);
    const rejected = new Set(rejections.list().map((object) => rejectionWrite(object, 0)?.about));
    for (const [about, { at }] of written) {
      if (now() - at > REPEAT_MS && !rejected.has(about)) written.delete(about);
    }
    if (failure !== null) throw failure;
  }

  function* pending(): Generator<StatusWrite> {
    const rejected = new Set<string>();
    for (const object of rejections.list()) {
      const write = rejectionWrite(object, now());
      if (write === null) continue;
      rejected.add(write.about);
      yield write;
    }
    yield* retractions.values();
    for (const update of statuses.conditions()) {
      const write = conditionWrite(update, now());
      // What is known of its last good version does not hide that it is rejected now.
      if (!rejected.has(write.about)) yield write;
    }
    for (const update of statuses.addresses()) yield addressWrite(update);
  }

  function isDue({ about, content, isMissing }: StatusWrite): boolean {
    const last = written.get(about);
    return last === undefined || last.content !== content || (isMissing && now() - last.at >= REPEAT_MS);
  }

  async function perform(write: StatusWrite): Promise<void> {
    try {
      await write.perform(api);
    } catch (error) {
      const status = error instanceof KubeError ? error.status : 0;
      if (!HOPELESS.has(status)) throw error;
      if (status !== 404)
        log.warn('control', 'a status was not accepted', { object: write.about, error: messageOf(error) });
    }
    written.set(write.about, { content: write.content, at: now() });
    retractions.delete(write.about);
  }
}

const REPEAT_MS = 60_000;
const PARALLEL = 4;
/** The object is gone, is another one by now, or does not take it: the same would come of another attempt. */
const HOPELESS: ReadonlySet<number> = new Set([400, 404, 409, 413, 422]);

import { type Backoff, createBackoff } from '../../backoff.ts';
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
  /** How often it is looked anyway, in ms. */
  readonly checkMs?: number;
}

/**
 * Writes to objects what has become of them. A write that does not last, because somebody else writes the same, is repeated
 * once a minute at most.
 */
export function startStatusWriter(options: StatusWriterOptions): { close(): void } {
  const { api, lease, statuses, rejections, revision, log, checkMs = REPEAT_MS } = options;
  /** What was written last, by what it is about, and when by performance.now(). */
  const written = new Map<string, { readonly content: string; readonly at: number }>();
  /** Objects that are not rejected any more, or were when another process wrote. */
  const retractions = new Map<string, StatusWrite>();
  /** What could not be written, and when by performance.now() it may be tried again: it must not keep the others from being written. */
  const failed = new Map<string, { readonly backoff: Backoff; notBefore: number }>();
  let retry: NodeJS.Timeout | undefined;
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
  return {
    close() {
      clearTimeout(retry);
      caretaker.close();
    },
  };

  async function writeAll(): Promise<void> {
    if (!lease.held()) return;
    if (!hasLookedForStale) {
      const rejected = new Set(rejections.list().map(({ kind, key }) => `${kind.kind} ${key}`));
      for (const write of await staleVerdicts(api, rejected, revision)) retractions.set(write.about, write);
      hasLookedForStale = true;
    }
    const all = [...pending()];
    forgetFailuresOfOthers(all);
    const due = all.filter(isDue);
    const failures: { readonly write: StatusWrite; readonly error: unknown }[] = [];
    let next = 0;
    let succeeded = 0;
    let isAway = false;
    // A few at a time: a thousand policies at the start must neither storm the API server nor take for ever.
    const workers = Array.from({ length: PARALLEL }, async () => {
      for (let write = due[next++]; write !== undefined && lease.held() && !isAway; write = due[next++]) {
        try {
          await perform(write);
          succeeded++;
        } catch (error) {
          failures.push({ write, error });
          // Nobody answers: the next one would wait for as long.
          isAway ||= !(error instanceof KubeError) || error.status === 0;
        }
      }
    });
    await Promise.all(workers);
    const rejected = new Set(rejections.list().map((object) => rejectionWrite(object, 0)?.about));
    for (const [about, { at }] of written) {
      if (performance.now() - at > REPEAT_MS && !rejected.has(about)) written.delete(about);
    }
    // What has failed together comes due together.
    const failedAt = performance.now();
    for (const { write } of failures) postpone(write, failedAt);
    // When nothing at all could be written the caretaker tries again, less and less often.
    clearTimeout(retry);
    const [first] = failures;
    const cause = first === undefined ? '' : `${first.write.about}: ${messageOf(first.error)}`;
    if (isAway && succeeded === 0) throw new Error(cause, { cause: first?.error });
    const waitMs = failed.size === 0 ? 0 : tryAgain();
    if (first === undefined) return;
    log.warn('control', 'the status of objects cannot be written', {
      error: cause,
      ...(failures.length === 1 ? {} : { objects: failures.length }),
      wait_ms: waitMs,
    });
  }

  function postpone({ about }: StatusWrite, failedAt: number): void {
    const backoff = failed.get(about)?.backoff ?? createBackoff(RETRY);
    failed.set(about, { backoff, notBefore: failedAt + backoff.next() });
  }

  /** Sees to it that what has failed is tried again; in how many ms the first of it. */
  function tryAgain(): number {
    const first = Math.min(...[...failed.values()].map(({ notBefore }) => notBefore));
    const waitMs = Math.min(Math.max(RETRY.firstMs, Math.ceil(first - performance.now())), REPEAT_MS);
    // A timer may be up to 1 ms early, and what is not due then would wait for another.
    retry = setTimeout(() => caretaker.tend(), waitMs + 1);
    retry.unref();
    return waitMs;
  }

  function forgetFailuresOfOthers(all: readonly StatusWrite[]): void {
    if (failed.size === 0) return;
    const abouts = new Set(all.map(({ about }) => about));
    for (const about of failed.keys()) if (!abouts.has(about)) failed.delete(about);
  }

  function* pending(): Generator<StatusWrite> {
    const rejected = new Set<string>();
    for (const object of rejections.list()) {
      const write = rejectionWrite(object, Date.now());
      if (write === null) continue;
      rejected.add(write.about);
      yield write;
    }
    yield* retractions.values();
    for (const update of statuses.conditions()) {
      const write = conditionWrite(update, Date.now());
      // What is known of its last good version does not hide that it is rejected now.
      if (!rejected.has(write.about)) yield write;
    }
    for (const update of statuses.addresses()) yield addressWrite(update);
  }

  function isDue({ about, content, isMissing }: StatusWrite): boolean {
    if ((failed.get(about)?.notBefore ?? 0) > performance.now()) return false;
    const last = written.get(about);
    return last === undefined || last.content !== content || (isMissing && performance.now() - last.at >= REPEAT_MS);
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
    failed.delete(write.about);
    written.set(write.about, { content: write.content, at: performance.now() });
    // It may have been corrected while what was wrong with it was being written.
    if (retractions.get(write.about) === write) retractions.delete(write.about);
  }
}

const REPEAT_MS = 60_000;
const PARALLEL = 4;
/** Those that fail together are tried together, so that they cost one line. */
const RETRY = { firstMs: 500, maxMs: REPEAT_MS, jitter: 0, random: Math.random };
/** The object is gone, is another one by now, or does not take it: the same would come of another attempt. */
const HOPELESS: ReadonlySet<number> = new Set([400, 404, 409, 413, 422]);

import type { ObjectChange, ObjectListener, RejectedObject } from '../kinds.ts';

/** Collects the news of one turn of the event loop, and tells it in order when the turn has ended. */
export interface NewsBatch {
  changed(change: ObjectChange): void;
  rejected(object: RejectedObject): void;
  /** Tells now what has been collected. */
  flush(): void;
}

export function createBatch(listener: ObjectListener): NewsBatch {
  let changes: ObjectChange[] = [];
  let waiting: (() => void)[] = [];
  let timer: NodeJS.Immediate | null = null;

  function flush(): void {
    if (timer !== null) clearImmediate(timer);
    timer = null;
    endRun();
    const telling = waiting;
    waiting = [];
    for (const tell of telling) tell();
  }

  /** Changes one after another are told together. */
  function endRun(): void {
    if (changes.length === 0) return;
    const run = changes;
    changes = [];
    waiting.push(() => listener.changed(run));
  }

  return {
    changed(change) {
      changes.push(change);
      timer ??= setImmediate(flush);
    },
    rejected(object) {
      endRun();
      waiting.push(() => listener.rejected(object));
      timer ??= setImmediate(flush);
    },
    flush,
  };
}

import { createBackoff } from '../backoff.ts';

/** Brings something back into order whenever it may have come out of it: one attempt at a time, again after a failure. */
export interface Caretaker {
  /** Something may be out of order. */
  tend(): void;
  close(): void;
}

export interface CaretakerOptions {
  /** How often it is looked at anyway, in ms. */
  readonly everyMs: number;
  /** An attempt failed; the next one follows after that many ms. */
  readonly failed: (error: unknown, waitMs: number) => void;
}

export function createCaretaker(act: () => Promise<void>, { everyMs, failed }: CaretakerOptions): Caretaker {
  const backoff = createBackoff({ firstMs: 500, maxMs: 30_000, jitter: 0.5, random: Math.random });
  let isActing = false;
  let again = false;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  schedule(everyMs);
  return {
    tend() {
      again = true;
      if (isActing) return;
      isActing = true;
      // After all of what is told of in one piece, not in the midst of it.
      queueMicrotask(() => void work());
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };

  async function work(): Promise<void> {
    isActing = true;
    let waitMs = everyMs;
    while (again && !closed) {
      again = false;
      try {
        await act();
        backoff.reset();
      } catch (error) {
        waitMs = Math.round(backoff.next());
        failed(error, waitMs);
        // What comes of each failure must not make it an attempt after the other.
        break;
      }
    }
    isActing = false;
    if (!closed) schedule(waitMs);
  }

  function schedule(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(() => {
      again = true;
      if (!isActing) void work();
    }, ms);
    timer.unref();
  }
}

import { type Backoff, createBackoff } from '../../backoff.ts';

/**
 * Work by key: what is asked for while the key's work runs is done once more afterwards, never at the same time. Failed
 * work is tried again with growing delays. Different keys run side by side, up to a bound.
 */
export interface WorkQueue {
  /** Asks for the key's work, at once. */
  add(key: string): void;
  /** Asks for it after a while, unless it is asked for before. */
  addLater(key: string, ms: number): void;
  /** Keys that wait or run. */
  size(): number;
  /** Resolves when nothing waits or runs; what is only due later does not count. */
  idle(): Promise<void>;
  /** Takes no more work and resolves when what runs has ended. */
  close(): Promise<void>;
}

export interface WorkQueueOptions {
  /** What it throws is told to `onError` and the work is tried again. */
  readonly work: (key: string) => Promise<void>;
  readonly onError: (key: string, error: unknown, retryMs: number) => void;
  readonly concurrency: number;
  readonly random?: () => number;
}

export function createWorkQueue({ work, onError, concurrency, random = Math.random }: WorkQueueOptions): WorkQueue {
  const waiting = new Set<string>();
  const running = new Set<string>();
  const timers = new Map<string, NodeJS.Timeout>();
  const backoffs = new Map<string, Backoff>();
  let idlers: (() => void)[] = [];
  let closed = false;

  function add(key: string): void {
    if (closed) return;
    clearTimeout(timers.get(key));
    timers.delete(key);
    waiting.add(key);
    pump();
  }

  function addLater(key: string, ms: number): void {
    if (closed || waiting.has(key)) return;
    clearTimeout(timers.get(key));
    timers.set(
      key,
      setTimeout(() => add(key), ms),
    );
  }

  function pump(): void {
    for (const key of waiting) {
      if (running.size >= concurrency) return;
      if (running.has(key)) continue;
      waiting.delete(key);
      running.add(key);
      void run(key);
    }
  }

  async function run(key: string): Promise<void> {
    try {
      await work(key);
      backoffs.delete(key);
    } catch (error) {
      const backoff = backoffs.get(key) ?? createBackoff({ firstMs: 100, maxMs: 15_000, jitter: 0.3, random });
      backoffs.set(key, backoff);
      const ms = Math.round(backoff.next());
      onError(key, error, ms);
      addLater(key, ms);
    }
    running.delete(key);
    pump();
    if (running.size + waiting.size > 0) return;
    for (const resolve of idlers) resolve();
    idlers = [];
  }

  function idle(): Promise<void> {
    if (running.size + waiting.size === 0) return Promise.resolve();
    return new Promise((resolve) => idlers.push(resolve));
  }

  return {
    add,
    addLater,
    size: () => new Set([...waiting, ...running]).size,
    idle,
    async close() {
      closed = true;
      waiting.clear();
      for (const timer of timers.values()) clearTimeout(timer);
      timers.clear();
      await idle();
    },
  };
}

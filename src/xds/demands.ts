import { Patience } from '../patience.ts';

/**
 * Resources that are asked for when a connection needs them (spec §9.6). Unlike the incumbent's, a demand is answered by a
 * resource that bears the key as a further name, waits a bounded time, and any number of connections may wait for one key.
 */
export interface Demands {
  /** Resolves when the control plane has said what the keys are, or that it does not know them, or did not answer. */
  ask(keys: readonly string[]): Promise<void>;
  /** A response named these and is in the mesh state. */
  answered(names: ReadonlySet<string>): void;
  /** Keys that nobody has answered yet, to be asked on a new stream. */
  pending(): string[];
  close(): void;
}

/**
 * @param send asks the control plane for keys; does nothing without a stream
 * @param isUnknown whether the mesh state has nothing by that key
 */
export function createDemands(send: (keys: readonly string[]) => void, isUnknown: (key: string) => boolean): Demands {
  const waiting = new Map<string, AwaitedKey>();
  /** When each key was asked for last, the oldest first. */
  const asked = new Map<string, number>();
  // Who gets an address that nobody had is not told by itself: the plans that were made without it would stay for ever.
  const repeat = setInterval(() => {
    const unknown = [...asked.keys()].filter((key) => !waiting.has(key) && isUnknown(key)).slice(-MAX_REPEATED);
    if (unknown.length > 0) send(unknown);
  }, REPEAT_MS);
  repeat.unref();

  function settle(key: string): void {
    const awaited = waiting.get(key);
    if (awaited === undefined) return;
    waiting.delete(key);
    awaited.patience.end();
    awaited.resolve();
  }

  function start(key: string, now: number): void {
    const patience = new Patience(PATIENCE_MS, () => settle(key)).unref();
    waiting.set(key, { ...Promise.withResolvers<void>(), patience });
    asked.delete(key);
    asked.set(key, now);
    if (asked.size > MAX_REMEMBERED) asked.delete(asked.keys().next().value!);
  }

  return {
    async ask(keys) {
      const now = performance.now();
      const fresh = keys.filter(
        (key) => !waiting.has(key) && now - (asked.get(key) ?? Number.NEGATIVE_INFINITY) > RECENT_MS,
      );
      for (const key of fresh) start(key, now);
      if (fresh.length > 0) send(fresh);
      await Promise.all(keys.map((key) => waiting.get(key)?.promise));
    },
    answered(names) {
      for (const name of names) settle(name);
    },
    pending: () => [...waiting.keys()],
    close() {
      clearInterval(repeat);
      for (const key of [...waiting.keys()]) settle(key);
    },
  };
}

interface AwaitedKey {
  readonly promise: Promise<void>;
  readonly patience: Patience;
  resolve(): void;
}

/** How long a connection waits for an answer. */
const PATIENCE_MS = 2000;
/** An answer this young is not asked for again. */
const RECENT_MS = 5000;
const REPEAT_MS = 60_000;
/** Bounds what a client can cause that dials one address after the other. */
const MAX_REMEMBERED = 10_000;
const MAX_REPEATED = 1000;

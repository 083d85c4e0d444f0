import { createBackoff } from '../backoff.ts';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { type KubeApi, KubeError } from './api.ts';
import { fields, text } from './object.ts';

/**
 * A copy of a list of Kubernetes objects that is kept up to date: it lists once and then watches. A watch goes on where
 * the one before stopped; only when the API server no longer knows that place is everything listed again, and then only
 * what has really changed is told. A watch that is silent for longer than bookmarks allow is taken for dead.
 */
export interface Reflector<T> {
  /** Resolves when the first list is complete. */
  readonly synced: Promise<void>;
  get(key: string): T | null;
  values(): Iterable<T>;
  /** Times that a list or a watch failed, since the start. */
  failures(): number;
  close(): void;
}

export interface ReflectorOptions<T> {
  readonly api: KubeApi;
  /** e.g. `/api/v1/pods` */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Null for an object that cannot be used; it is passed over. */
  readonly read: (object: unknown) => T | null;
  readonly key: (object: T) => string;
  /** `after` is null when the object is gone; `before` when it is new. Called once the copy is up to date. */
  readonly onChange: (before: T | null, after: T | null) => void;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly random?: () => number;
  /** Longest silence of a watch in ms. The API server sends a bookmark every minute or so. */
  readonly stallMs?: number;
}

export function startReflector<T>(options: ReflectorOptions<T>): Reflector<T> {
  const { api, path, query = {}, read, key, onChange, log, random = Math.random, stallMs = 180_000 } = options;
  const objects = new Map<string, { readonly version: string; readonly value: T }>();
  const synced = Promise.withResolvers<void>();
  const ended = new AbortController();
  const backoff = createBackoff({ firstMs: 200, maxMs: 30_000, jitter: 0.5, random });
  let failures = 0;
  /** Where the next watch begins; null when everything has to be listed. */
  let version: string | null = null;
  void follow();

  return {
    synced: synced.promise,
    get: (key) => objects.get(key)?.value ?? null,
    *values() {
      for (const { value } of objects.values()) yield value;
    },
    failures: () => failures,
    close: () => ended.abort(),
  };

  async function follow(): Promise<void> {
    while (!ended.signal.aborted) {
      try {
        if (version === null) {
          version = await list();
          synced.resolve();
        }
        const started = Date.now();
        await watch();
        backoff.reset();
        // A server that ends each watch at once must not be asked without end.
        if (Date.now() - started < SHORT_WATCH_MS) await pause(SHORT_WATCH_MS);
      } catch (error) {
        if (ended.signal.aborted) return;
        failures++;
        if (error instanceof KubeError && error.status === GONE) version = null;
        const waitMs = Math.max(Math.round(backoff.next()), error instanceof KubeError ? error.retryAfterMs : 0);
        log.warn('kube', 'lost sight of objects, trying again', { path, error: messageOf(error), wait_ms: waitMs });
        await pause(waitMs);
      }
    }
  }

  async function list(): Promise<string> {
    const seen = new Set<string>();
    let next = '';
    do {
      const page = fields(await api.get(withQuery({ limit: '500', ...(next === '' ? {} : { continue: next }) })));
      for (const object of Array.isArray(page.items) ? page.items : []) {
        const value = read(object);
        if (value === null) continue;
        seen.add(key(value));
        put(value, versionOf(object));
      }
      const { resourceVersion, continue: more } = fields(page.metadata);
      next = text(more);
      if (next === '') {
        for (const known of [...objects.keys()]) if (!seen.has(known)) drop(known);
        log.info('kube', 'listed objects', { path, objects: objects.size });
        return text(resourceVersion);
      }
    } while (!ended.signal.aborted);
    throw new KubeError('KUBE_CLOSED', 'closed');
  }

  async function watch(): Promise<void> {
    // Watches of many nodes must not all be renewed at the same time.
    const seconds = Math.round(MIN_WATCH_S * (1 + random()));
    const target = withQuery({
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: version!,
      timeoutSeconds: `${seconds}`,
    });
    await api.lines(target, receive, stallMs, ended.signal);
  }

  function receive(line: string): void {
    let event: unknown;
    try {
      event = JSON.parse(line);
    } catch (cause) {
      throw new KubeError('KUBE_ANSWER', 'an event of a watch is not JSON', 0, { cause });
    }
    const { type, object } = fields(event);
    if (type === 'ERROR') {
      const { code, message } = fields(object);
      throw new KubeError('KUBE_STATUS', `watch: ${text(message)}`, typeof code === 'number' ? code : 0);
    }
    backoff.reset();
    const at = versionOf(object);
    const value = type === 'BOOKMARK' ? null : read(object);
    if (value !== null) {
      if (type === 'DELETED') drop(key(value), value);
      else put(value, at);
    }
    if (at !== '') version = at;
  }

  function put(value: T, at: string): void {
    const id = key(value);
    const before = objects.get(id);
    if (before !== undefined && before.version === at) return;
    objects.set(id, { version: at, value });
    onChange(before?.value ?? null, value);
  }

  /** @param last how the object was in the end, if that was said */
  function drop(id: string, last: T | null = null): void {
    const before = objects.get(id);
    if (before === undefined) return;
    objects.delete(id);
    onChange(last ?? before.value, null);
  }

  function withQuery(more: Readonly<Record<string, string>>): string {
    return `${path}?${new URLSearchParams({ ...query, ...more })}`;
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (ended.signal.aborted) return resolve();
      const timer = setTimeout(done, ms);
      ended.signal.addEventListener('abort', done);
      function done() {
        clearTimeout(timer);
        ended.signal.removeEventListener('abort', done);
        resolve();
      }
    });
  }
}

function versionOf(object: unknown): string {
  return text(fields(fields(object).metadata).resourceVersion);
}

/** The API server has forgotten the version that a watch was to begin at. */
const GONE = 410;
const SHORT_WATCH_MS = 1000;
/** A watch lasts this long to twice as long: at rest, there is next to no request. */
const MIN_WATCH_S = 1200;

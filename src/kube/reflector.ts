import { createBackoff } from '../backoff.ts';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { isNotFound, type KubeApi, KubeError } from './api.ts';
import { fields, metadataOf, text } from './object.ts';
import { createObjectTable, type ObjectReader } from './object-table.ts';

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
  /** Why the objects are not followed at the moment; null while they are. */
  problem(): string | null;
  close(): void;
}

export interface ReflectorOptions<T> extends ObjectReader<T> {
  readonly api: Pick<KubeApi, 'get' | 'lines'>;
  /** e.g. `/api/v1/pods` */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Whether the API server may not know the kind. It is looked for from time to time, and counts as an empty list. */
  readonly optional?: boolean;
  /** By which an object is known; "" for one that is passed over. */
  readonly key: (object: unknown) => string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly random?: () => number;
  /** Longest silence of a watch in ms. The API server sends a bookmark every minute or so. */
  readonly stallMs?: number;
  /** How often an optional kind that is missing is looked for, in ms. */
  readonly missingMs?: number;
}

export function startReflector<T>(options: ReflectorOptions<T>): Reflector<T> {
  const { api, path, query = {}, key, log } = options;
  const { optional = false, random = Math.random, stallMs = 180_000, missingMs = 30_000 } = options;
  const objects = createObjectTable(options);
  const synced = Promise.withResolvers<void>();
  const ended = new AbortController();
  const backoff = createBackoff({ firstMs: 200, maxMs: 30_000, jitter: 0.5, random });
  /** Tells lists of one path apart. */
  const what = [path, ...Object.entries(query).map(([name, value]) => `${name}=${value}`)].join(' ');
  let failures = 0;
  let problem: string | null = null;
  /** What was last said in the log of a failure, and when by performance.now(). */
  let complaint: { readonly problem: string; readonly at: number } | null = null;
  /** Whether that was said since all was well. */
  let hasComplained = false;
  /** Where the next watch begins; null when everything has to be listed. */
  let version: string | null = null;
  /** Since when the API server has not known the kind, by performance.now(); null while it knows it. */
  let missingSince: number | null = null;
  void follow();

  return {
    synced: synced.promise,
    get: objects.get,
    values: objects.values,
    failures: () => failures,
    problem: () => problem,
    close: () => ended.abort(),
  };

  async function follow(): Promise<void> {
    while (!ended.signal.aborted) {
      try {
        if (version === null) {
          version = await list();
          missingSince = null;
          synced.resolve();
        }
        const started = performance.now();
        await watch();
        backoff.reset();
        // A server that ends each watch at once must not be asked without end.
        if (performance.now() - started < SHORT_WATCH_MS) await pause(SHORT_WATCH_MS);
      } catch (error) {
        if (ended.signal.aborted) return;
        if (optional && isNotFound(error)) {
          await missing();
          continue;
        }
        failures++;
        if (error instanceof KubeError && error.status === GONE) version = null;
        const waitMs = Math.max(Math.round(backoff.next()), error instanceof KubeError ? error.retryAfterMs : 0);
        complain(messageOf(error), waitMs);
        await pause(waitMs);
      }
    }
  }

  /** Once, and again every minute while it lasts or comes back. */
  function complain(error: string, waitMs: number): void {
    problem = error;
    const now = performance.now();
    if (complaint?.problem === problem && now - complaint.at < SAY_AGAIN_MS) return;
    complaint = { problem, at: now };
    hasComplained = true;
    const known = version === null && objects.size() === 0 ? '' : ', those that are known stay as they are';
    log.warn('kube', `objects cannot be followed${known}; trying again`, {
      objects: what,
      error: problem,
      wait_ms: waitMs,
    });
  }

  function isWell(): void {
    if (hasComplained) log.info('kube', 'objects are followed again', { objects: what });
    hasComplained = false;
    problem = null;
  }

  /**
   * The API server does not know the kind. Objects go with their kind only when that lasts: a server that has just
   * started may not know yet what it serves.
   */
  async function missing(): Promise<void> {
    version = null;
    problem = null;
    hasComplained = false;
    const now = performance.now();
    if (missingSince === null)
      log.info('kube', 'the cluster does not have this kind; it is looked for again', { objects: what });
    missingSince ??= now;
    if (now - missingSince >= FORGET_MISSING_AFTER * missingMs) forget(new Set());
    if (objects.size() === 0) synced.resolve();
    await pause(missingMs * (0.5 + random()));
  }

  async function list(): Promise<string> {
    const seen = new Set<string>();
    let next = '';
    do {
      const page = fields(await api.get(withQuery({ limit: '500', ...(next === '' ? {} : { continue: next }) })));
      for (const object of Array.isArray(page.items) ? page.items : []) seen.add(put(object));
      const { resourceVersion, continue: more } = fields(page.metadata);
      next = text(more);
      if (next === '') {
        forget(seen);
        log.info('kube', 'listed objects', { objects: what, count: objects.size() });
        isWell();
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
    await api.lines(target, receive, stallMs, ended.signal, isWell);
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
    isWell();
    if (type === 'DELETED') objects.drop(key(object));
    else if (type !== 'BOOKMARK') put(object);
    const at = versionOf(object);
    if (at !== '') version = at;
  }

  /** Returns the object's key. */
  function put(object: unknown): string {
    const id = key(object);
    if (id !== '') objects.put(id, versionOf(object), object);
    return id;
  }

  function forget(seen: ReadonlySet<string>): void {
    for (const known of [...objects.keys()]) if (!seen.has(known)) objects.drop(known);
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
  return text(metadataOf(object).resourceVersion);
}

/** The API server has forgotten the version that a watch was to begin at. */
const GONE = 410;
const SHORT_WATCH_MS = 1000;
const SAY_AGAIN_MS = 60_000;
/** A watch lasts this long to twice as long: at rest, there is next to no request. */
const MIN_WATCH_S = 1200;
/** How often in a row, about, an optional kind must be missing before its objects are taken for deleted. */
const FORGET_MISSING_AFTER = 4;

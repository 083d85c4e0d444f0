import type { ResolvedName, ResolvedNames } from '../routing/names.ts';

/** What a look-up found. */
export interface Lookup {
  /** Canonical. */
  readonly ips: readonly string[];
  /** How long it holds, in ms. */
  readonly ttl: number;
}

export interface HostnamesOptions {
  /** Rejects with the DNS error's name as `code`. */
  readonly lookup: (hostname: string) => Promise<Lookup>;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** Whether plans that hold the name's addresses are in use. */
  readonly isUsed: (hostname: string) => boolean;
  /** The addresses of a name changed. */
  readonly onChange: (hostname: string) => void;
}

/**
 * Addresses of workloads that the mesh state knows by name only. A name that is in use is looked up again when its time
 * has passed, behind the back of the connections that use it; the others are forgotten.
 */
export class Hostnames implements ResolvedNames {
  readonly #options: HostnamesOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #underWay = new Map<string, Promise<void>>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: HostnamesOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.tick(), TICK);
    this.#timer.unref();
  }

  addresses(hostname: string): ResolvedName | null {
    return this.#entries.get(hostname) ?? null;
  }

  /** Looks the name up, once for all who ask meanwhile. Never rejects; `addresses` has the outcome. */
  resolve(hostname: string): Promise<void> {
    let underWay = this.#underWay.get(hostname);
    if (underWay === undefined) {
      underWay = this.#lookUp(hostname).finally(() => this.#underWay.delete(hostname));
      this.#underWay.set(hostname, underWay);
    }
    return underWay;
  }

  /** Looks up again what is in use, and forgets what is not. Called every second. */
  tick(): void {
    const { now, isUsed } = this.#options;
    for (const [hostname, { expiresAt }] of this.#entries) {
      if (expiresAt > now()) continue;
      if (isUsed(hostname)) void this.resolve(hostname);
      else this.#entries.delete(hostname);
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #lookUp(hostname: string): Promise<void> {
    const { lookup, now, onChange } = this.#options;
    const before = this.#entries.get(hostname);
    let entry: Entry;
    try {
      const { ips, ttl } = await lookup(hostname);
      const sorted = [...new Set(ips)].sort();
      entry = {
        ips: sorted,
        failure: sorted.length === 0 ? 'valid dns response had no A/AAAA records' : '',
        expiresAt: now() + Math.min(MAX_TTL, Math.max(MIN_TTL, ttl)),
      };
    } catch (error) {
      const code = String((error as { code?: unknown }).code ?? error);
      // Servers that do not answer say nothing about the name: what they said last is kept.
      const kept = DENIALS.has(code) ? [] : (before?.ips ?? []);
      entry = { ips: kept, failure: kept.length === 0 ? code : '', expiresAt: now() + RETRY };
    }
    this.#entries.delete(hostname);
    this.#entries.set(hostname, entry);
    if (this.#entries.size > MAX_ENTRIES) this.#evict(hostname);
    if (before !== undefined && before.ips.join() !== entry.ips.join()) onChange(hostname);
  }

  /** Makes room, for the sake of `newest`: the oldest name goes that is not in use, or else the oldest of all. */
  #evict(newest: string): void {
    const { isUsed, onChange } = this.#options;
    for (const hostname of this.#entries.keys()) {
      if (hostname === newest || isUsed(hostname)) continue;
      this.#entries.delete(hostname);
      return;
    }
    const oldest = this.#entries.keys().next().value!;
    this.#entries.delete(oldest);
    // Nobody would look it up again behind the plans that hold its addresses: they go too.
    onChange(oldest);
  }
}

interface Entry extends ResolvedName {
  readonly expiresAt: number;
}

const TICK = 1000;
/** A time of 0 would have a name looked up for every connection. */
const MIN_TTL = 1000;
const MAX_TTL = 3_600_000;
const RETRY = 5000;
/** The incumbent's (spec §3.7). */
const MAX_ENTRIES = 4096;
/** The name does not exist, or has no addresses. */
const DENIALS: ReadonlySet<string> = new Set(['ENOTFOUND', 'ENODATA']);

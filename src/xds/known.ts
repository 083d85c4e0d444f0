import { PackedMap } from '../state/packed-map.ts';
import type { TypeUrl } from './delta.ts';

/** What the control plane has sent of one type, over all streams. */
export class KnownResources {
  readonly typeUrl: TypeUrl;
  /** Name → version of what was accepted last. */
  readonly #versions: PackedMap;
  /** Name → why it was not accepted. */
  readonly #rejected = new Map<string, string>();
  /**
   * Known names that the stream's first request did not report. Whatever of them its first response does not bring is
   * gone; null when every name was reported, and the control plane tells what is gone.
   */
  #unreported: PackedMap | null = null;
  lastPush: Push | null = null;

  /** @param versions an empty map, for this alone */
  constructor(typeUrl: TypeUrl, versions = new PackedMap()) {
    this.typeUrl = typeUrl;
    this.#versions = versions;
  }

  get size(): number {
    return this.#versions.size;
  }

  get rejected(): ReadonlyMap<string, string> {
    return this.#rejected;
  }

  has(name: string): boolean {
    return this.#versions.find(name) >= 0;
  }

  accept(name: string, version: string): void {
    this.#versions.set(name, version);
    // Nearly always empty, and deleting from a Map is not free.
    if (this.#rejected.size > 0) this.#rejected.delete(name);
    this.#unreported?.delete(name);
  }

  /** What was accepted of that name before stays. */
  reject(name: string, reason: string): void {
    this.#unreported?.delete(name);
    if (this.#rejected.size < MAX_REJECTED || this.#rejected.has(name)) this.#rejected.set(name, reason);
  }

  remove(name: string): void {
    this.#versions.delete(name);
    this.#rejected.delete(name);
    this.#unreported?.delete(name);
  }

  /**
   * Name and version of what is known, as much as fits, and null for each of the rest. Starts a new stream: what does not
   * fit is unreported.
   * @param fits whether one more may be reported
   */
  *report(fits: (name: string, version: string) => boolean): Generator<readonly [string, string] | null> {
    this.#unreported = null;
    // What is still wrong is sent again, as its version was not reported.
    this.#rejected.clear();
    for (const id of this.#versions.ids()) {
      const [name, version] = [this.#versions.keyAt(id), this.#versions.valueAt(id)];
      if (this.#unreported === null && fits(name, version)) {
        yield [name, version];
      } else {
        this.#unreported ??= new PackedMap();
        this.#unreported.set(name, '');
        yield null;
      }
    }
  }

  /** Names that went while nobody could tell. To be called once the first response of a stream is taken in. */
  *takeMissing(): Generator<string> {
    const missing = this.#unreported;
    this.#unreported = null;
    if (missing !== null) for (const id of missing.ids()) yield missing.keyAt(id);
  }
}

/** A response, as it is shown to operators. */
export interface Push {
  /** Unix time in ms. */
  readonly at: number;
  readonly resources: number;
  readonly removed: number;
  readonly rejected: number;
  /** Of the resources' contents. */
  readonly bytes: number;
}

/** More than anyone reads; a control plane gone wrong may reject everything. */
const MAX_REJECTED = 1000;

import { isDeepStrictEqual } from 'node:util';

/** Objects of one kind as they were last read, from wherever they come. */
export interface ObjectTable<T> {
  get(key: string): T | null;
  values(): Iterable<T>;
  keys(): Iterable<string>;
  size(): number;
  /** @param version the same version is the same object, and is not read again */
  put(key: string, version: string, object: unknown): void;
  drop(key: string): void;
}

export interface ObjectReader<T> {
  /** Null for an object that is of no interest. What it throws goes to `onRejected`. */
  readonly read: (object: unknown) => T | null;
  /** What is in force instead of an object that never could be read; null for nothing. */
  readonly standIn?: (object: unknown) => T | null;
  /** `after` is null when the object is gone; `before` when it is new. Called once the table is up to date. */
  readonly onChange: (before: T | null, after: T | null, key: string) => void;
  /**
   * An object cannot be read: the version before stays in force until it is corrected or deleted. Its end is told even if
   * there never was a version that could be read. Called after the change to a stand-in; one that stays as it is, is not told
   * of. Without this function, what `read` throws goes to who calls `put`.
   */
  readonly onRejected?: (object: unknown, key: string, error: unknown) => void;
}

interface Entry<T> {
  readonly version: string;
  /** Null of an object that never could be read. */
  readonly value: T | null;
  readonly isStandIn: boolean;
}

export function createObjectTable<T>({ read, standIn, onChange, onRejected }: ObjectReader<T>): ObjectTable<T> {
  const entries = new Map<string, Entry<T>>();

  function put(key: string, version: string, object: unknown): void {
    const before = entries.get(key);
    if (before !== undefined && before.version === version) return;
    let value: T | null;
    try {
      value = read(object);
    } catch (error) {
      if (onRejected === undefined) throw error;
      reject(key, version, object, before);
      onRejected(object, key, error);
      return;
    }
    if (value === null) {
      drop(key);
      return;
    }
    entries.set(key, { version, value, isStandIn: false });
    onChange(before?.value ?? null, value, key);
  }

  function reject(key: string, version: string, object: unknown, before: Entry<T> | undefined): void {
    if (before !== undefined && before.value !== null && !before.isStandIn) {
      entries.set(key, { ...before, version });
      return;
    }
    let value: T | null = null;
    try {
      value = standIn?.(object) ?? null;
    } catch {
      // Nothing can be told of it; that it was rejected has been said.
    }
    entries.set(key, { version, value, isStandIn: true });
    if (!isDeepStrictEqual(before?.value ?? null, value)) onChange(before?.value ?? null, value, key);
  }

  function drop(key: string): void {
    const before = entries.get(key);
    if (before === undefined) return;
    entries.delete(key);
    onChange(before.value, null, key);
  }

  return {
    get: (key) => entries.get(key)?.value ?? null,
    *values() {
      for (const { value } of entries.values()) if (value !== null) yield value;
    },
    keys: () => entries.keys(),
    size: () => entries.size,
    put,
    drop,
  };
}

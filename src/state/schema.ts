import type { Located } from './located.ts';

/**
 * Readers that turn located values into typed ones. Every problem is noted with its place, what was given and what is
 * accepted, and reading goes on, so that one pass reports all of them.
 */
export type Reader<T> = (value: Located, path: string, problems: Problems) => T | Invalid;

export const INVALID = Symbol('invalid');
export type Invalid = typeof INVALID;

export interface Problem {
  readonly at: number;
  /** Field path such as `workloads[0].protocol`; '' for the whole text */
  readonly path: string;
  readonly text: string;
}

/** Takes a problem and gives back INVALID, so that readers can return it. */
export type Problems = (at: number, path: string, text: string) => Invalid;

/** A field of an object. */
export interface Field<T> {
  readonly read: Reader<T>;
  readonly presence: { readonly kind: 'required' } | { readonly kind: 'optional'; readonly fallback: T };
}

export function required<T>(read: Reader<T>): Field<T> {
  return { read, presence: { kind: 'required' } };
}

/**
 * A field that may be left out. Written without a value (null) it counts as left out only when null is what it falls
 * back to: reading a forgotten list of addresses as "no restriction" would open a policy.
 */
export function optional<T>(read: Reader<T>, fallback: T): Field<T> {
  const presence = { kind: 'optional', fallback } as const;
  if (fallback !== null) return { read, presence };
  return { read: (value, path, problems) => (isNull(value) ? fallback : read(value, path, problems)), presence };
}

/** A map with exactly these fields. */
export function object<T extends object>(fields: { readonly [K in keyof T]: Field<T[K]> }): Reader<T> {
  const names = Object.keys(fields) as (keyof T & string)[];
  return (value, path, problems) => {
    if (value.kind !== 'map') return mismatch(value, path, problems, `a map with ${names.join(', ')}`);
    const given = new Map(value.entries.map((entry) => [entry.key, entry.value]));
    let valid = true;
    for (const { key, keyAt } of value.entries) {
      if (Object.hasOwn(fields, key)) continue;
      problems(keyAt, join(path, key), `unknown field; accepted: ${names.join(', ')}`);
      valid = false;
    }
    const result: Partial<T> = {};
    for (const name of names) {
      const { read, presence } = fields[name];
      const there = given.get(name);
      if (there !== undefined) {
        const outcome = read(there, join(path, name), problems);
        if (outcome === INVALID) valid = false;
        else result[name] = outcome;
      } else if (presence.kind === 'optional') {
        result[name] = presence.fallback;
      } else {
        problems(value.at, join(path, name), 'is required and missing');
        valid = false;
      }
    }
    return valid ? (result as T) : INVALID;
  };
}

/** A list whose items all read the same way. */
export function list<T>(item: Reader<T>, keyOf?: (item: T) => string): Reader<T[]> {
  return (value, path, problems) => {
    if (value.kind !== 'list') return mismatch(value, path, problems, 'a list');
    const result: T[] = [];
    const seen = new Set<string>();
    let valid = true;
    for (const [index, each] of value.items.entries()) {
      const place = `${path}[${index}]`;
      const outcome = item(each, place, problems);
      if (outcome === INVALID) {
        valid = false;
        continue;
      }
      const key = keyOf?.(outcome);
      if (key !== undefined && seen.has(key)) {
        problems(each.at, place, `${JSON.stringify(key)} is already in this list`);
        valid = false;
      }
      if (key !== undefined) seen.add(key);
      result.push(outcome);
    }
    return valid ? result : INVALID;
  };
}

/** A map from free keys to values that all read the same way. `key` gives null for a key that is not accepted. */
export function dictionary<T>(
  accepts: string,
  key: (text: string) => string | null,
  item: Reader<T>,
): Reader<Record<string, T>> {
  return (value, path, problems) => {
    if (value.kind !== 'map') return mismatch(value, path, problems, `a map with keys that are ${accepts}`);
    const result: [string, T][] = [];
    let valid = true;
    for (const entry of value.entries) {
      const place = `${path}[${JSON.stringify(entry.key)}]`;
      const name = key(entry.key);
      if (name === null) problems(entry.keyAt, place, `the key is not accepted; accepted: ${accepts}`);
      const outcome = item(entry.value, place, problems);
      if (name === null || outcome === INVALID) valid = false;
      else result.push([name, outcome]);
    }
    return valid ? Object.fromEntries(result) : INVALID;
  };
}

export const text: Reader<string> = (value, path, problems) => {
  if (value.kind === 'scalar' && typeof value.value === 'string') return value.value;
  const needsQuotes = value.kind === 'scalar' && value.value !== null;
  return mismatch(value, path, problems, needsQuotes ? 'text, which here needs quotes' : 'text');
};

export const flag: Reader<boolean> = (value, path, problems) =>
  value.kind === 'scalar' && typeof value.value === 'boolean'
    ? value.value
    : mismatch(value, path, problems, 'true, false');

/** A whole number from `least` to `most`. */
export function integer(least: number, most: number): Reader<number> {
  return (value, path, problems) => {
    const number = value.kind === 'scalar' ? value.value : null;
    const fits = typeof number === 'number' && Number.isInteger(number) && number >= least && number <= most;
    return fits ? number : mismatch(value, path, problems, `a whole number from ${least} to ${most}`);
  };
}

/** One of these words. */
export function choice<const T extends string>(...words: readonly T[]): Reader<T> {
  return (value, path, problems) => {
    const word = value.kind === 'scalar' ? words.find((each) => each === value.value) : undefined;
    return word ?? mismatch(value, path, problems, words.join(', '));
  };
}

/** Text with a form of its own. `parse` gives null for text without it. */
export function parsed<T>(accepts: string, parse: (given: string) => T | null): Reader<T> {
  return (value, path, problems) => {
    const result = value.kind === 'scalar' && typeof value.value === 'string' ? parse(value.value) : null;
    return result ?? mismatch(value, path, problems, accepts);
  };
}

/** Reads with `read`, then makes something else of it. */
export function mapped<T, U>(read: Reader<T>, make: (value: T) => U): Reader<U> {
  return (value, path, problems) => {
    const result = read(value, path, problems);
    return result === INVALID ? INVALID : make(result);
  };
}

/** Notes that the value is not what is accepted. */
export function mismatch(value: Located, path: string, problems: Problems, accepts: string): Invalid {
  return problems(value.at, path, `${describe(value)} is given; accepted: ${accepts}`);
}

export function isNull(value: Located): boolean {
  return value.kind === 'scalar' && value.value === null;
}

function describe(value: Located): string {
  if (value.kind !== 'scalar') return `a ${value.kind}`;
  if (value.value === null) return 'nothing';
  const given = JSON.stringify(value.value);
  return given.length <= 80 ? given : `${given.slice(0, 77)}…`;
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

/**
 * Policies of one action, prepared so that asking which of them matches does not visit the rules that cannot.
 *
 * A rule matches only when one match of every clause does, and a match only when a condition of each field it names
 * holds. So each rule is filed under the conditions of one field of each match of one clause: whichever conditions occur
 * least. A connection finds the conditions that hold for it, few, by looking them up, and visits what is filed under them.
 * Rules that name only what must not be, or nothing, cannot be filed and are always visited.
 *
 * A table is memory that threads share: handing it over costs nothing, and it is there once per process.
 */
import { type Condition, FIELDS } from './conditions.ts';
import type { Policy, PolicyMatch } from './types.ts';

export interface PolicyTable {
  /** See Header and Entry. */
  readonly words: Int32Array<SharedArrayBuffer>;
  /** UTF-16 units of all texts. */
  readonly text: Uint16Array<SharedArrayBuffer>;
}

/** Where in `words` the offset of each part stands. */
export const Header = {
  /** Pairs of kind and length: what a connection looks up. */
  SHAPES: 0,
  SHAPE_COUNT: 1,
  /** Hash table of condition numbers + 1; 0 is free. */
  HASH: 2,
  HASH_MASK: 3,
  CONDITIONS: 4,
  CONDITION_COUNT: 5,
  /** Text ranges of the policies' keys. */
  POLICIES: 6,
  /** Offsets of the rules that are always visited. */
  UNFILED: 7,
  UNFILED_COUNT: 8,
  SIZE: 9,
} as const;

/** The words of a condition. */
export const Entry = {
  HASH: 0,
  KIND: 1,
  TEXT: 2,
  TEXT_LENGTH: 3,
  /** Offset and number of the rules filed under it: offsets of rules, ascending. */
  FILED: 4,
  FILED_COUNT: 5,
  SIZE: 6,
} as const;

/**
 * A rule in `words`: number of its policy, its end, then clauses. A clause: its end, then matches. A match: its end, then
 * fields. A field: the number of its conditions, negative when none of them may hold, then the numbers of the conditions.
 */
interface Rule {
  readonly policy: number;
  readonly clauses: readonly (readonly Match[])[];
}

type Match = readonly { readonly wanted: boolean; readonly conditions: readonly number[] }[];

/** Says what in a policy means nothing, by its place. */
export class Unintelligible extends Error {}

/** Collects policies; `finish` makes the table. Both yield now and then, so that a large table can be made in slices. */
export class TableBuilder {
  readonly #conditions: Condition[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #shapes = new Map<string, Condition>();
  /** How many rules want each condition. */
  readonly #uses: number[] = [];
  readonly #keys: string[] = [];
  readonly #rules: Rule[] = [];

  /** Policies are told apart by order: the first one added that matches is the one that is named. @throws Unintelligible */
  *add(key: string, policy: Policy): Generator<void, void> {
    // Nothing of a policy that turns out to be unintelligible stays.
    const rules: Rule[] = [];
    for (const [index, clauses] of policy.rules.entries()) {
      const rule = this.#rule(index, clauses);
      if (rule !== null) rules.push(rule);
      if (endsSlice(index)) yield;
    }
    this.#keys.push(key);
    for (const rule of rules) {
      this.#rules.push(rule);
      for (const clauses of rule.clauses)
        for (const match of clauses)
          for (const { wanted, conditions } of match)
            if (wanted) for (const number of conditions) this.#uses[number]! += 1;
    }
  }

  get isEmpty(): boolean {
    return this.#keys.length === 0;
  }

  *finish(): Generator<void, PolicyTable> {
    const words: number[] = new Array(Header.SIZE).fill(0);
    const texts = new Texts();
    words[Header.SHAPES] = words.length;
    words[Header.SHAPE_COUNT] = this.#shapes.size;
    for (const { kind, length } of this.#shapes.values()) words.push(kind, length);
    words[Header.POLICIES] = words.length;
    for (const key of this.#keys) words.push(texts.place(key), key.length);

    const filed: number[][] = this.#conditions.map(() => []);
    const unfiled: number[] = [];
    for (const [index, rule] of this.#rules.entries()) {
      const at = words.length;
      writeRule(words, rule);
      const under = this.#rarest(rule);
      if (under === null) unfiled.push(at);
      else for (const number of under) filed[number]!.push(at);
      if (endsSlice(index)) yield;
    }
    words[Header.UNFILED] = words.length;
    words[Header.UNFILED_COUNT] = unfiled.length;
    for (const at of unfiled) words.push(at);

    const start = words.length;
    words[Header.CONDITIONS] = start;
    words[Header.CONDITION_COUNT] = filed.length;
    for (const [number, { kind, text }] of this.#conditions.entries()) {
      words.push(hashOf(kind, text), kind, texts.place(text), text.length, 0, 0);
      if (endsSlice(number)) yield;
    }
    for (const [number, rules] of filed.entries()) {
      words[start + number * Entry.SIZE + Entry.FILED] = words.length;
      words[start + number * Entry.SIZE + Entry.FILED_COUNT] = rules.length;
      for (const at of rules) words.push(at);
      if (endsSlice(number)) yield;
    }
    yield* writeHashTable(words, start, filed.length);
    const shared = new Int32Array(new SharedArrayBuffer(words.length * Int32Array.BYTES_PER_ELEMENT));
    shared.set(words);
    return { words: shared, text: yield* texts.share() };
  }

  #rule(index: number, clauses: Policy['rules'][number]): Rule | null {
    const compiled: Match[][] = [];
    let canMatch = true;
    for (const [clause, matches] of clauses.entries()) {
      // A clause without matches asks nothing.
      if (matches.length === 0) continue;
      const asking = matches
        .map((match, at) => this.#match(match, `rules[${index}][${clause}][${at}]`))
        // A match that names no field never matches (spec §5.1).
        .filter((match) => match.length > 0);
      if (asking.length === 0) canMatch = false;
      compiled.push(asking);
    }
    return canMatch ? { policy: this.#keys.length, clauses: compiled } : null;
  }

  #match(match: PolicyMatch, at: string): Match {
    const unknown = Object.keys(match).find((name) => !FIELD_NAMES.has(name));
    if (unknown !== undefined) throw new Unintelligible(`${at} has the unknown field ${unknown}`);
    const fields: { wanted: boolean; conditions: number[] }[] = [];
    for (const { wanted, unwanted, condition } of FIELDS) {
      for (const name of [wanted, unwanted]) {
        const values = match[name];
        if (!Array.isArray(values)) throw new Unintelligible(`${at}.${name} is no list`);
        if (values.length === 0) continue;
        const conditions = values.map((value, index) => {
          const found = condition(value as never);
          if (found !== null) return this.#number(found);
          throw new Unintelligible(`${at}.${name}[${index}] is ${JSON.stringify(value)}`);
        });
        fields.push({ wanted: name === wanted, conditions: [...new Set(conditions)] });
      }
    }
    return fields;
  }

  #number(condition: Condition): number {
    const name = `${condition.kind} ${condition.text}`;
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const number = this.#conditions.push(condition) - 1;
    this.#numbers.set(name, number);
    this.#shapes.set(`${condition.kind} ${condition.length}`, condition);
    this.#uses.push(0);
    return number;
  }

  /** The conditions to file a rule under; null when no clause consists of matches that each want something. */
  #rarest({ clauses }: Rule): Set<number> | null {
    let best: Set<number> | null = null;
    let bestUses = Number.POSITIVE_INFINITY;
    for (const clause of clauses) {
      const under = new Set<number>();
      let uses = 0;
      for (const match of clause) {
        const field = this.#rarestField(match);
        uses += field.uses;
        for (const number of field.conditions) under.add(number);
      }
      if (uses < bestUses) [best, bestUses] = [under, uses];
    }
    return best;
  }

  #rarestField(match: Match): { readonly uses: number; readonly conditions: readonly number[] } {
    let best = NO_FIELD;
    for (const { wanted, conditions } of match) {
      if (!wanted) continue;
      const uses = conditions.reduce((sum, number) => sum + this.#uses[number]!, 0);
      if (uses < best.uses) best = { uses, conditions };
    }
    return best;
  }
}

/** FNV-1a over UTF-16 units, its bits mixed once more as the low ones pick the slot. */
export function hashOf(kind: number, text: string): number {
  let hash = 0x811c9dc5 ^ kind;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) ^ (hash >>> 13);
}

/** Yields every so many rules or conditions: a fraction of a millisecond. */
const SLICE = 128;

function endsSlice(index: number): boolean {
  return index % SLICE === SLICE - 1;
}

const FIELD_NAMES: ReadonlySet<string> = new Set(FIELDS.flatMap(({ wanted, unwanted }) => [wanted, unwanted]));
const NO_FIELD = { uses: Number.POSITIVE_INFINITY, conditions: [] as readonly number[] };

function writeRule(words: number[], { policy, clauses }: Rule): void {
  words.push(policy);
  withEnd(words, () => {
    for (const clause of clauses) {
      withEnd(words, () => {
        for (const match of clause) {
          withEnd(words, () => {
            for (const { wanted, conditions } of match) {
              words.push(wanted ? conditions.length : -conditions.length);
              for (const number of conditions) words.push(number);
            }
          });
        }
      });
    }
  });
}

/** A word that says where what `write` writes ends. */
function withEnd(words: number[], write: () => void): void {
  const at = words.push(0) - 1;
  write();
  words[at] = words.length;
}

/** Open addressing, at most half full. */
function* writeHashTable(words: number[], conditions: number, count: number): Generator<void, void> {
  let size = 4;
  while (size < 2 * count) size *= 2;
  const start = words.length;
  words[Header.HASH] = start;
  words[Header.HASH_MASK] = size - 1;
  for (let slot = 0; slot < size; slot++) words.push(0);
  for (let number = 0; number < count; number++) {
    let slot = words[conditions + number * Entry.SIZE + Entry.HASH]! & (size - 1);
    while (words[start + slot] !== 0) slot = (slot + 1) & (size - 1);
    words[start + slot] = number + 1;
    if (endsSlice(number)) yield;
  }
}

/** Texts one after the other. */
class Texts {
  readonly #texts: string[] = [];
  #length = 0;

  /** Where it will be. */
  place(text: string): number {
    this.#texts.push(text);
    this.#length += text.length;
    return this.#length - text.length;
  }

  *share(): Generator<void, Uint16Array<SharedArrayBuffer>> {
    const units = new Uint16Array(new SharedArrayBuffer(this.#length * Uint16Array.BYTES_PER_ELEMENT));
    let end = 0;
    for (const [index, text] of this.#texts.entries()) {
      for (let at = 0; at < text.length; at++) units[end++] = text.charCodeAt(at);
      if (endsSlice(index)) yield;
    }
    return units;
  }
}

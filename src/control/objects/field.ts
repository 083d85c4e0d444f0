/**
 * Reading objects that nobody has checked: a value that knows where in its object it is. What is absent (or null, as YAML
 * has it) reads as empty; what is of another type throws an Error with the path and what belongs there.
 */
export class Field {
  readonly value: unknown;
  readonly #name: string | number;
  readonly #parent: Field | null;

  private constructor(value: unknown, name: string | number, parent: Field | null) {
    this.value = value;
    this.#name = name;
    this.#parent = parent;
  }

  static of(object: unknown): Field {
    return new Field(object, '', null);
  }

  get isPresent(): boolean {
    return this.value !== undefined && this.value !== null;
  }

  /** The field of a mapping. */
  at(name: string): Field {
    const mapping = this.isPresent ? this.#mapping() : NOTHING;
    return new Field(Object.hasOwn(mapping, name) ? mapping[name] : undefined, name, this);
  }

  /** Names that a mapping has. */
  names(): string[] {
    return this.isPresent ? Object.keys(this.#mapping()) : [];
  }

  list(): Field[] {
    if (!this.isPresent) return [];
    if (!Array.isArray(this.value)) throw this.wrong('a list');
    return this.value.map((item, index) => new Field(item, index, this));
  }

  text(): string {
    if (!this.isPresent) return '';
    if (typeof this.value !== 'string') throw this.wrong('a text (in YAML, put it in quotes)');
    return this.value;
  }

  texts(): string[] {
    return this.list().map((item) => {
      if (!item.isPresent) throw item.wrong('a text');
      return item.text();
    });
  }

  flag(): boolean {
    if (!this.isPresent) return false;
    if (typeof this.value !== 'boolean') throw this.wrong('true or false');
    return this.value;
  }

  /** A whole number of the range; null when absent. */
  integer(least: number, most: number): number | null {
    if (!this.isPresent) return null;
    const { value } = this;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
      throw this.wrong(`a whole number from ${least} to ${most}`);
    return value;
  }

  port(): number | null {
    return this.integer(0, 65535);
  }

  /** A mapping of texts. */
  labels(): Record<string, string> {
    return Object.fromEntries(this.names().map((name) => [name, this.at(name).#label()]));
  }

  wrong(wanted: string): Error {
    const given = JSON.stringify(this.value)?.slice(0, LONGEST_QUOTE) ?? 'nothing';
    return new Error(`${this.path() || 'the object'} must be ${wanted}, not ${given}`);
  }

  path(): string {
    if (this.#parent === null) return '';
    const before = this.#parent.path();
    if (typeof this.#name === 'number') return `${before}[${this.#name}]`;
    return before === '' ? this.#name : `${before}.${this.#name}`;
  }

  #label(): string {
    if (typeof this.value !== 'string') throw this.wrong('a text (in YAML, put it in quotes)');
    return this.value;
  }

  #mapping(): Record<string, unknown> {
    if (typeof this.value !== 'object' || Array.isArray(this.value)) throw this.wrong('a mapping');
    return this.value as Record<string, unknown>;
  }
}

const NOTHING: Readonly<Record<string, unknown>> = Object.freeze({});
const LONGEST_QUOTE = 60;

import { inspect } from 'node:util';

/** What is printed in the place of a secret. */
export const MASK = '***';

/**
 * A text that must not be printed. Everything that turns a value into text by accident (string conversion, JSON,
 * `util.inspect`, a structured clone to another thread) gives the mask or nothing; only `reveal()` gives the text.
 */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The secret itself, for the one place that sends it. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return MASK;
  }

  toJSON(): string {
    return MASK;
  }

  [inspect.custom](): string {
    return MASK;
  }
}

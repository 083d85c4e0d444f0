/** Equal objects become one, for as long as somebody has it. */
export class Interned<T extends object> {
  readonly #keyOf: (value: T) => string;
  readonly #known = new Map<string, WeakRef<T>>();
  readonly #gone = new FinalizationRegistry<string>((key) => {
    if (this.#known.get(key)?.deref() === undefined) this.#known.delete(key);
  });

  /** @param keyOf the same text for equal values, and only for them */
  constructor(keyOf: (value: T) => string) {
    this.#keyOf = keyOf;
  }

  of(value: T): T {
    const key = this.#keyOf(value);
    const known = this.#known.get(key)?.deref();
    if (known !== undefined) return known;
    this.#known.set(key, new WeakRef(value));
    this.#gone.register(value, key);
    return value;
  }
}

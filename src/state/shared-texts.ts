/** Texts that many have, by number; one that nobody has any more is dropped. */
export class SharedTexts {
  readonly #byText = new Map<string, number>();
  readonly #texts: string[] = [];
  readonly #uses: number[] = [];
  readonly #free: number[] = [];

  /** The number of a text; has to be released as often as it was acquired. */
  acquire(text: string): number {
    let id = this.#byText.get(text);
    if (id === undefined) {
      id = this.#free.pop() ?? this.#texts.length;
      this.#byText.set(text, id);
      this.#texts[id] = text;
      this.#uses[id] = 0;
    }
    this.#uses[id]!++;
    return id;
  }

  at(id: number): string {
    return this.#texts[id]!;
  }

  release(id: number): void {
    if (--this.#uses[id]! > 0) return;
    this.#byText.delete(this.#texts[id]!);
    this.#texts[id] = '';
    this.#free.push(id);
  }
}

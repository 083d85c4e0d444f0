import { messageOf } from '../errors.ts';

/** A value of a YAML or JSON text that knows where it stands. `at` is the offset of its first character. */
export type Located =
  | { readonly kind: 'map'; readonly at: number; readonly entries: readonly LocatedEntry[] }
  | { readonly kind: 'list'; readonly at: number; readonly items: readonly Located[] }
  | { readonly kind: 'scalar'; readonly at: number; readonly value: Scalar };

export type Scalar = string | number | boolean | null;

export interface LocatedEntry {
  readonly key: string;
  readonly keyAt: number;
  readonly value: Located;
}

/** Line and column, both from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

export interface LocatedText {
  /** null when the text is not well formed; then there is at least one fault */
  readonly root: Located | null;
  readonly faults: readonly { readonly at: number; readonly text: string }[];
  positionOf(at: number): Position;
}

/** Reads one YAML 1.2 document (of which JSON is a part). Never throws for what the text says. */
export async function locateYaml(text: string): Promise<LocatedText> {
  // Loaded here because most agents get their mesh from a control plane.
  const yaml = await import('yaml');
  const lines = new yaml.LineCounter();
  const positionOf = (at: number): Position => {
    const { line, col } = lines.linePos(at);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const faults: { at: number; text: string }[] = [];
  try {
    // With `silent` the library would leave out a second document without a word, and with it the policies in it.
    const document = yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: 'error' });
    for (const { pos, code, message: told } of [...document.errors, ...document.warnings]) {
      // A file may end with a line that begins another one.
      if (code === 'MULTIPLE_DOCS' && saysNothing(text.slice(pos[0]))) continue;
      const message = code === 'MULTIPLE_DOCS' ? 'a second document begins; only one is accepted' : told;
      // One mistake in a flow collection is reported once per level.
      if (faults.at(-1)?.text !== message) faults.push({ at: pos[0], text: message });
    }
    const root = faults.length > 0 ? null : new Converter(yaml, faults).convert(document.contents, 0);
    return { root: faults.length > 0 ? null : root, faults, positionOf };
  } catch (error) {
    // Nesting that exhausts the stack ends here.
    faults.push({ at: 0, text: `cannot be parsed: ${messageOf(error)}` });
    return { root: null, faults, positionOf };
  }
}

/** Whether a text has nothing but comments and lines that begin or end a document. */
function saysNothing(text: string): boolean {
  return text.replace(/^(?:[ \t]*#.*|(?:---|\.\.\.)(?:[ \t]+#.*|[ \t]*))$/gm, '').trim() === '';
}

type Yaml = typeof import('yaml');

/** How many values aliases may add; a few aliases of aliases are enough to ask for more than fits in memory. */
const ALIAS_BUDGET = 100_000;

class Converter {
  readonly #yaml: Yaml;
  /** The library finds an alias's target by walking the whole document; this makes it one look-up. */
  readonly #anchors = new Map<string, unknown>();
  readonly #faults: { at: number; text: string }[];
  #aliasDepth = 0;
  #aliasBudget = ALIAS_BUDGET;

  constructor(yaml: Yaml, faults: { at: number; text: string }[]) {
    this.#yaml = yaml;
    this.#faults = faults;
  }

  convert(node: unknown, parentAt: number): Located {
    const { isAlias, isMap, isNode, isScalar, isSeq } = this.#yaml;
    const at = isNode(node) ? (node.range?.[0] ?? parentAt) : parentAt;
    if (this.#aliasDepth > 0 && --this.#aliasBudget < 0) return this.#fault(at, 'aliases expand to too many values');
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source);
      if (target === undefined || this.#aliasDepth >= MAX_ALIAS_DEPTH)
        return this.#fault(at, 'alias without end or target');
      this.#aliasDepth++;
      const value = this.convert(target, at);
      this.#aliasDepth--;
      return value;
    }
    if (isNode(node) && node.anchor !== undefined) this.#anchors.set(node.anchor, node);
    if (isMap(node)) return { kind: 'map', at, entries: node.items.map((pair) => this.#entry(pair, at)) };
    if (isSeq(node)) return { kind: 'list', at, items: node.items.map((item) => this.convert(item, at)) };
    return { kind: 'scalar', at, value: isScalar(node) ? toScalar(node.value) : null };
  }

  #entry({ key, value }: { key: unknown; value: unknown }, parentAt: number): LocatedEntry {
    const name = this.convert(key, parentAt);
    if (name.kind !== 'scalar') this.#fault(name.at, 'a key must be text or a number');
    return {
      key: name.kind === 'scalar' ? String(name.value) : '',
      keyAt: name.at,
      value: this.convert(value, name.at),
    };
  }

  #fault(at: number, text: string): Located {
    this.#faults.push({ at, text });
    return { kind: 'scalar', at, value: null };
  }
}

const MAX_ALIAS_DEPTH = 20;

function toScalar(value: unknown): Scalar {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
}

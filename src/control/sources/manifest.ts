import { messageOf } from '../../errors.ts';
import { fields } from '../../kube/object.ts';

/** A Kubernetes object of a file, and where it begins; both numbers count from 1. */
export interface ManifestObject {
  readonly object: Readonly<Record<string, unknown>>;
  readonly line: number;
  readonly column: number;
}

export class ManifestError extends Error {
  readonly line: number;
  readonly column: number;

  constructor(message: string, line: number, column: number, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ManifestError';
    this.line = line;
    this.column = column;
  }
}

/**
 * Reads the objects of a file as kubectl does: YAML documents (JSON is YAML as well), each an object or a `List` of them.
 * @throws ManifestError for the first thing that is wrong: one half of a file is not used without the other
 */
export async function readManifest(source: string): Promise<ManifestObject[]> {
  const { parseAllDocuments, LineCounter } = await import('yaml');
  const lines = new LineCounter();
  const found: ManifestObject[] = [];
  for (const document of parseAllDocuments(source, { lineCounter: lines, prettyErrors: false, logLevel: 'silent' })) {
    const fail = (at: number, message: string, cause?: unknown): never => {
      const { line, column } = placeOf(at);
      throw new ManifestError(message, line, column, { cause });
    };
    const [error] = document.errors;
    if (error !== undefined) fail(error.pos[0], error.message);
    const { contents } = document;
    // Nothing between two separators, or only a comment.
    if (contents === null) continue;
    const at = contents.range[0];
    let value: unknown;
    try {
      value = document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (cause) {
      fail(at, messageOf(cause), cause);
    }
    if (value === null) continue;
    for (const object of objectsOf(value)) {
      if (typeof fields(object).kind !== 'string' || typeof fields(object).apiVersion !== 'string') {
        fail(at, 'this is no Kubernetes object: it needs apiVersion and kind');
      }
      found.push({ object: fields(object), ...placeOf(at) });
    }
  }
  return found;

  function placeOf(at: number): { line: number; column: number } {
    const { line, col } = lines.linePos(at);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  }
}

/** A few aliases of aliases are enough to ask for more than fits in memory. */
const MAX_ALIASES = 1000;

function objectsOf(value: unknown): readonly unknown[] {
  const { kind, items } = fields(value);
  return typeof kind === 'string' && kind.endsWith('List') && Array.isArray(items) ? items : [value];
}

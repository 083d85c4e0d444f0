/**
 * JSON with two spaces of indentation, in pieces: a dump of a large mesh is never whole in memory, and making it does not
 * hold up the loop. The pieces joined are what `JSON.stringify(value, null, 2)` gives, and a line feed.
 */
const PIECE_CHARACTERS = 32 * 1024;

/** Values at this depth are made at once: the entries of the lists and tables of a dump. */
const WHOLE_DEPTH = 2;

export function* prettyJson(value: unknown): Generator<string, void, void> {
  let piece = '';
  for (const part of parts(value, 0)) {
    piece += part;
    if (piece.length >= PIECE_CHARACTERS) {
      yield piece;
      piece = '';
    }
  }
  yield `${piece}\n`;
}

function* parts(value: unknown, depth: number): Generator<string, void, void> {
  if (depth === WHOLE_DEPTH || typeof value !== 'object' || value === null || hasToJson(value)) {
    const text = JSON.stringify(value, null, INDENT) ?? 'null';
    yield depth === 0 ? text : text.replaceAll('\n', `\n${INDENT.repeat(depth)}`);
    return;
  }
  const isArray = Array.isArray(value);
  const members = isArray ? value.entries() : Object.entries(value).filter(([, member]) => member !== undefined);
  let count = 0;
  for (const [name, member] of members) {
    const lead = `${count++ === 0 ? (isArray ? '[' : '{') : ','}\n${INDENT.repeat(depth + 1)}`;
    yield isArray ? lead : `${lead}${JSON.stringify(name)}: `;
    yield* parts(member, depth + 1);
  }
  const close = isArray ? ']' : '}';
  yield count === 0 ? `${isArray ? '[' : '{'}${close}` : `\n${INDENT.repeat(depth)}${close}`;
}

const INDENT = '  ';

function hasToJson(value: object): boolean {
  return typeof (value as { toJSON?: unknown }).toJSON === 'function';
}

/** One line that the agent wrote about a connection (spec §13.4). Fields that the line does not have are ''. */
export interface AccessLine {
  readonly message: string;
  readonly field: (name: string) => string;
}

/** Reads a line of the agent's plain log; null when it is not one of target `access`. */
export function readAccessLine(line: string): AccessLine | null {
  const [, , target, message, text] = line.split('\t');
  if (target !== 'access' || message === undefined) return null;
  const fields = new Map<string, string>();
  for (const [, name, quoted, bare] of (text ?? '').matchAll(FIELD)) {
    fields.set(name!, quoted === undefined ? bare! : quoted.replace(/\\(.)/g, '$1'));
  }
  return { message, field: (name) => fields.get(name) ?? '' };
}

const FIELD = /([a-z_.]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))/g;

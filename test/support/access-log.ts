/** Reads access log lines (spec §13) back, in both formats, so that tests can ask for fields. */

/** A line of target `access`. */
export interface AccessLine {
  readonly level: string;
  /** `connection complete`, `connection failed` … */
  readonly message: string;
  /** Values without quotes; '' for a field that the line does not have. */
  readonly field: (name: string) => string;
  /** Names in the order of the line. */
  readonly names: readonly string[];
  /** The same with what is quoted marked: `src.addr`, `"src.workload"`. */
  readonly shape: readonly string[];
  readonly text: string;
}

/** Null for a line of another target. */
export function readAccessLine(text: string): AccessLine | null {
  return text.startsWith('{') ? readJson(text) : readPlain(text);
}

function readPlain(text: string): AccessLine | null {
  const [time, level, target, message, ...rest] = text.split('\t');
  if (target !== 'access' || !TIME.test(time ?? '')) return null;
  const fields: Field[] = [...rest.join('\t').matchAll(/([\w.]+)=("(?:[^"\\]|\\.)*"|\S+)/g)].map(([, name, value]) => ({
    name: name!,
    value: value!.startsWith('"') ? JSON.parse(value!) : value!,
    quoted: value!.startsWith('"'),
  }));
  return line(text, level!, message!, fields);
}

function readJson(text: string): AccessLine | null {
  const { level, time, scope, message, ...rest } = JSON.parse(text) as Record<string, string | number>;
  if (scope !== 'access' || !TIME.test(String(time))) return null;
  const fields = Object.entries(rest).map(([name, value]) => ({
    name,
    value: String(value),
    quoted: typeof value === 'string',
  }));
  return line(text, String(level), String(message), fields);
}

interface Field {
  readonly name: string;
  readonly value: string;
  readonly quoted: boolean;
}

function line(text: string, level: string, message: string, fields: readonly Field[]): AccessLine {
  const values = new Map(fields.map(({ name, value }) => [name, value]));
  return {
    level,
    message,
    field: (name) => values.get(name) ?? '',
    names: fields.map(({ name }) => name),
    shape: fields.map(({ name, quoted }) => (quoted ? JSON.stringify(name) : name)),
    text,
  };
}

/** RFC 3339, UTC, microseconds. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

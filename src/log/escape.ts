/**
 * Values inside log lines. Whatever a peer or a file put into a text, it stays one value on one line: quotes, control and
 * invisible characters are escaped.
 */

/** Printable ASCII that needs no escape between quotes; what nearly every value is made of. */
const PLAIN = /^[ !#-[\]-~]*$/;
/** The same without the space: may stand in a line without quotes. */
const BARE = /^[!#-[\]-~]+$/;
/** Controls, invisible and unassigned characters, lone surrogates, and every space but the common one. */
const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/gu;

const SHORT_ESCAPES: Readonly<Record<string, string>> = { '\t': '\\t', '\n': '\\n', '\r': '\\r', '\0': '\\0' };

/** The text in double quotes, as the plain format writes strings (spec §13.2): `\"`, `\\`, `\n`, `\u{9b}`. */
export function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : `"${escapeUnprintable(text.replace(/["\\]/g, '\\$&'))}"`;
}

/** The text without quotes where that cannot be misread, else as `quoted` does. */
export function bare(text: string): string {
  return BARE.test(text) ? text : quoted(text);
}

/** A text that stands between tabs: only what could break the line or hide in it is escaped. */
export function singleLine(text: string): string {
  return PLAIN.test(text) ? text : escapeUnprintable(text);
}

/** The text as a JSON string that holds nothing unprintable. */
export function jsonString(text: string): string {
  if (PLAIN.test(text)) return `"${text}"`;
  return JSON.stringify(text).replace(UNPRINTABLE, (character) => {
    let escaped = '';
    for (let at = 0; at < character.length; at++) {
      escaped += `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`;
    }
    return escaped;
  });
}

function escapeUnprintable(text: string): string {
  return text.replace(
    UNPRINTABLE,
    (character) => SHORT_ESCAPES[character] ?? `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

import type { HeaderField } from './hpack.ts';

/** Why a field may not appear in any HTTP/2 message (RFC 9113 §8.2), or null. Not for pseudo-header fields. */
export function fieldFault(field: HeaderField): string | null {
  const name = field[0];
  const value = field[1];
  // What comes from a header table is the same string every time: the comparison looks at no character.
  const known = wellFormed.get(name);
  if (known === value) return null;
  if (known === undefined || name === 'te') {
    const fault = nameFault(name, value);
    if (fault !== null) return fault;
  }
  const fault = valueFault(name, value);
  if (fault === null && (known !== undefined || wellFormed.size < MAX_KNOWN) && value.length <= MAX_KNOWN_LENGTH) {
    wellFormed.set(name, value);
  }
  return fault;
}

/** The same for a pseudo-header field, whose name is one that is known. */
export function pseudoFieldFault(field: HeaderField): string | null {
  const name = field[0];
  const value = field[1];
  if (wellFormed.get(name) === value) return null;
  const fault = valueFault(name, value);
  if (fault === null && value.length <= MAX_KNOWN_LENGTH) wellFormed.set(name, value);
  return fault;
}

function nameFault(name: string, value: string): string | null {
  if (!LOWER_CASE_TOKEN.test(name)) {
    if (name === '') return 'field without a name';
    const fault = isToken(name) ? 'is not lower case' : 'holds a character that names may not hold';
    return `field name ${quoted(name)} ${fault}`;
  }
  if (CONNECTION_SPECIFIC.has(name)) return `connection-specific field ${quoted(name)}`;
  if (name === 'te' && value.toLowerCase() !== 'trailers') return 'field "te" other than "trailers"';
  return null;
}

/** Names that may stand in a message, each with the last value that may; few and short, as peers choose most of them. */
const wellFormed = new Map<string, string>();
const MAX_KNOWN = 64;
const MAX_KNOWN_LENGTH = 1024;

/** Why a value, of a pseudo-header field too, is not allowed (RFC 9113 §8.2.1, RFC 9110 §5.5), or null. */
function valueFault(name: string, value: string): string | null {
  if (!VALUE.test(value)) return `field ${quoted(name)} holds a character that values may not hold`;
  if (isBlank(value.charCodeAt(0)) || isBlank(value.charCodeAt(value.length - 1))) {
    return `value of field ${quoted(name)} starts or ends with white space`;
  }
  return null;
}

/** True for a token (RFC 9110 §5.6.2): methods, header names of any case, unquoted parameters. */
export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

/** Text of a peer as it may stand in a log line: short, quoted, printable ASCII. */
export function quoted(text: string): string {
  const short = text.length > 64 ? `${text.slice(0, 64)}...` : text;
  return JSON.stringify(short.replace(/[^ -~]/g, '?'));
}

/** Fields that HTTP/1.1 uses to manage its connection; in HTTP/2 they make a message malformed (RFC 9113 §8.2.2). */
const CONNECTION_SPECIFIC = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);

// Regular expressions scan a value in less than half the time of a loop over its characters (measured).
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const LOWER_CASE_TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** Tab, space, visible characters and obs-text (RFC 9110 §5.5); a recipient may refuse every other control character. */
const VALUE = /^[\t -~\x80-\xff]*$/;

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

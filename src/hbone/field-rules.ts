import type { HeaderField } from './hpack.ts';

/** Why a field may not appear in any HTTP/2 message (RFC 9113 §8.2), or null. Pseudo-header fields are checked elsewhere. */
export function fieldFault([name, value]: HeaderField): string | null {
  if (name === '') return 'field without a name';
  for (let i = 0; i < name.length; i++) {
    const kind = OCTETS[name.charCodeAt(i)]!;
    if ((kind & TOKEN) === 0) return `field name ${quoted(name)} holds a character that names may not hold`;
    if ((kind & UPPER) !== 0) return `field name ${quoted(name)} is not lower case`;
  }
  if (CONNECTION_SPECIFIC.has(name)) return `connection-specific field ${quoted(name)}`;
  if (name === 'te' && value.toLowerCase() !== 'trailers') return `field "te" other than "trailers"`;
  return valueFault(name, value);
}

/** Why a value, of a pseudo-header field too, is not allowed (RFC 9113 §8.2.1, RFC 9110 §5.5), or null. */
export function valueFault(name: string, value: string): string | null {
  for (let i = 0; i < value.length; i++) {
    if ((OCTETS[value.charCodeAt(i)]! & VALUE) === 0) {
      return `field ${quoted(name)} holds a character that values may not hold`;
    }
  }
  if (isBlank(value.charCodeAt(0)) || isBlank(value.charCodeAt(value.length - 1))) {
    return `value of field ${quoted(name)} starts or ends with white space`;
  }
  return null;
}

/** True for a token (RFC 9110 §5.6.2): methods, header names of any case, unquoted parameters. */
export function isToken(text: string): boolean {
  for (let i = 0; i < text.length; i++) if ((OCTETS[text.charCodeAt(i)]! & TOKEN) === 0) return false;
  return text.length > 0;
}

/** Text of a peer as it may stand in a log line: short, quoted, printable ASCII. */
export function quoted(text: string): string {
  const short = text.length > 64 ? `${text.slice(0, 64)}...` : text;
  return JSON.stringify(short.replace(/[^ -~]/g, '?'));
}

/** Fields that HTTP/1.1 uses to manage its connection; in HTTP/2 they make a message malformed (RFC 9113 §8.2.2). */
const CONNECTION_SPECIFIC = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);

const TOKEN = 1;
const UPPER = 2;
const VALUE = 4;
const OCTETS = classify();

function classify(): Uint8Array {
  const octets = new Uint8Array(256);
  for (let octet = 0; octet < 256; octet++) {
    const character = String.fromCharCode(octet);
    if (/[!#$%&'*+.^_`|~0-9A-Za-z-]/.test(character)) octets[octet]! |= TOKEN;
    if (/[A-Z]/.test(character)) octets[octet]! |= UPPER;
    // Tab, visible characters, space and obs-text (RFC 9110 §5.5); a recipient may refuse every other control character.
    if (octet === 0x09 || (octet >= 0x20 && octet !== 0x7f)) octets[octet]! |= VALUE;
  }
  return octets;
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

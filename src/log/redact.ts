/** Keeps secrets out of log lines, should a caller hand one over in spite of everything. */
import { MASK } from '../config/secret.ts';

const SECRET_NAME = /(?:^|[._-])(?:token|secret|password|authorization|private[._-]?key)$/i;
const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g;
const BEARER = /\b(Bearer) +[^\s"]+/gi;
const JSON_WEB_TOKEN = /\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g;

/** The value of a field, or the mask when the field's name says that it is a secret. */
export function redactField<T>(name: string, value: T): T | string {
  return SECRET_NAME.test(name) && value !== null && value !== undefined ? MASK : value;
}

/** The text without private keys, bearer tokens and JSON web tokens. */
export function redactText(text: string): string {
  let clean = text;
  if (clean.includes('PRIVATE KEY')) clean = clean.replace(PRIVATE_KEY, MASK);
  if (clean.includes('earer ')) clean = clean.replace(BEARER, `$1 ${MASK}`);
  return clean.includes('eyJ') ? clean.replace(JSON_WEB_TOKEN, MASK) : clean;
}

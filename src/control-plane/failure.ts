/** What explanations of requests that a control plane did not fulfil have in common. */
import { MASK } from '../config/secret.ts';
import type { ControlPlaneServer } from './grpc.ts';

/** The server as an operator knows it: `host[:port]`. */
export function placeOf({ address }: ControlPlaneServer): string {
  return address.replace(/^https:\/\//, '');
}

export function tokenOf({ token }: ControlPlaneServer): string {
  return token.kind === 'file'
    ? `the token in ${token.path}`
    : 'the token in AUTH_TOKEN (the token itself, as it names no file)';
}

export function rootsOf({ roots, prefix }: ControlPlaneServer): string {
  return roots.kind === 'file' ? `${prefix}_ROOT_CA (${roots.path})` : `${prefix}_ROOT_CA`;
}

/**
 * When a token in JWT form expires, ms since 1970; null for any other. It is not verified: this only explains what the
 * server said.
 */
export function expiryOf(token: string | null): number | null {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token?.split('.')[1] ?? '', 'base64url').toString());
    const { exp } = payload as { exp?: unknown };
    return typeof exp === 'number' && Math.abs(exp) < 8.64e12 ? exp * 1000 : null;
  } catch {
    return null;
  }
}

/**
 * What a server is sent and must not come back in its words: the values of headers, whole and in their parts. A first word
 * of letters alone is no secret but a scheme, as in `Bearer …`.
 */
export function headerSecrets({ headers }: ControlPlaneServer): string[] {
  return headers.flatMap(({ value }) => {
    const whole = value.reveal();
    return [whole, ...whole.split(/[\s,;]+/).filter((part, index) => index > 0 || !/^[a-z]+$/i.test(part))];
  });
}

/** The text of the other side, made safe to print: without what was sent in confidence, tokens, control characters and great length. */
export function printable(text: string, ...secrets: readonly (string | null)[]): string {
  let safe = text;
  // The longest first: one that is part of another would leave the rest of that one behind.
  const masked = secrets.filter((secret) => secret !== null).filter(({ length }) => length >= SECRET);
  for (const secret of masked.sort((a, b) => b.length - a.length)) safe = safe.replaceAll(secret, MASK);
  return safe
    .replace(TOKEN, MASK)
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, MAX_LENGTH);
}

/** The API server's longest sentences, and what to do about them. */
const MAX_LENGTH = 500;
/** What is shorter is none, and would take words out of sentences. */
const SECRET = 6;
/** A token in JWT form, or the beginning of one: an object in base64. */
const TOKEN = /eyJ[\w-]{8,}(?:\.[\w-]*){0,2}/g;

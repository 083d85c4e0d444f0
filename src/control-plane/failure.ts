/** What explanations of requests that a control plane did not fulfil have in common. */
import type { ControlPlaneServer } from './grpc.ts';

/** The server as an operator knows it: `host[:port]`. */
export function placeOf({ address }: ControlPlaneServer): string {
  return address.replace(/^https:\/\//, '');
}

export function tokenOf({ token }: ControlPlaneServer): string {
  return token.kind === 'file' ? `the token in ${token.path}` : 'the token in AUTH_TOKEN';
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

/** The text of the other side, made safe to print: without our own token, control characters and great length. */
export function printable(text: string, token: string | null): string {
  const safe = token === null ? text : text.replaceAll(token, '***');
  return safe
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, MAX_LENGTH);
}

const MAX_LENGTH = 300;

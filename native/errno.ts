import { constants } from 'node:os';
import { CulvertError } from '../src/errors.ts';

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]));

const ERRNO_TEXTS: Record<string, string> = {
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  EPIPE: 'Broken pipe',
  ETIMEDOUT: 'Connection timed out',
  EHOSTUNREACH: 'No route to host',
  ENETUNREACH: 'Network is unreachable',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  EMFILE: 'Too many open files',
  ENFILE: 'Too many open files in system',
};

/** The error of a system call; its code is the errno's name. `what` is said when there is no better text. */
export function errnoError(errno: number, what: string): CulvertError {
  const name = ERRNO_NAMES.get(errno) ?? `E${errno}`;
  // The text an operator knows from the incumbent's log (spec §13.6).
  return new CulvertError(name, `${ERRNO_TEXTS[name] ?? `${what} failed (${name})`} (os error ${errno})`);
}

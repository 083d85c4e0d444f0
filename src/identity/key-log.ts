import { closeSync, constants, fchmodSync, fstatSync, lstatSync, openSync } from 'node:fs';
import type { Config } from '../config/config.ts';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';

/** Returns the path of the key log; null when there is none or it cannot be had, as a debugging aid must not cost the traffic. */
export function makeKeyLog({ tlsKeylog, tlsKeylogAddresses }: Config, log: Logger): string | null {
  if (tlsKeylog === null) return null;
  try {
    makePrivate(tlsKeylog);
  } catch (error) {
    log.error(
      'app',
      'CULVERT_TLS_KEYLOG cannot be written, TLS session secrets go nowhere: name a regular file of the agent’s user, in a folder that is there and writable, or leave it empty',
      { file: tlsKeylog, error: messageOf(error) },
    );
    return null;
  }
  log.warn('app', 'TLS session secrets are written to a file: whoever reads it can decrypt all traffic of this node', {
    file: tlsKeylog,
    peers: tlsKeylogAddresses?.join(',') ?? 'all',
  });
  return tlsKeylog;
}

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;

function makePrivate(path: string): void {
  // Looked at first: to open a pipe and close it again ends who reads it.
  if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) throw new Error('not a regular file');
  const descriptor = openSync(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0o600);
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) throw new Error('not a regular file');
    if ((status.mode & 0o777) !== 0o600) fchmodSync(descriptor, 0o600);
  } finally {
    closeSync(descriptor);
  }
}

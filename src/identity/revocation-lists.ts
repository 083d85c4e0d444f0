import { readCrls } from '../../native/crl.ts';
import { messageOf } from '../errors.ts';
import { type FollowedFile, followFile } from '../follow-file.ts';

/** The part of the logger that is used. */
export interface RevocationLog {
  info(target: string, message: string, fields: Record<string, string | number>): void;
  warn(target: string, message: string, fields: Record<string, string | number>): void;
}

/**
 * Follows the file of revocation lists (CRL_PATH, §8.7). `changed` gets the content of every file that can be used; one
 * that cannot leaves the lists of before in force, and is said. Resolves once the first attempt is over.
 */
export function followRevocationLists(
  path: string,
  log: RevocationLog,
  changed: (lists: Uint8Array) => void,
  now: () => number = Date.now,
): Promise<FollowedFile> {
  let inForce = 0;
  return followFile(path, {
    async use(content) {
      const lists = await readCrls(content);
      inForce = lists.length;
      for (const { issuer, revoked, nextUpdate } of lists) {
        log.info(TARGET, 'a certificate revocation list is in force', { issuer, revoked });
        if (nextUpdate !== null && nextUpdate < now()) warnOfAge(log, issuer, nextUpdate, now());
      }
      if (lists.length === 0) log.info(TARGET, 'the file of revocation lists holds none', { file: path });
      changed(content);
    },
    failed(error, unreadable) {
      const what = unreadable ? 'cannot be read' : 'cannot be used';
      log.warn(TARGET, `the file of revocation lists ${what}; ${stays(inForce)}`, {
        file: path,
        error: messageOf(error),
      });
    },
  });
}

const TARGET = 'identity::crl';

/** An outdated list still counts: what it revokes stays revoked. */
function warnOfAge(log: RevocationLog, issuer: string, nextUpdate: number, now: number): void {
  log.warn(TARGET, 'a revocation list is older than its issuer wants; certificates revoked since are accepted', {
    issuer,
    due: new Date(nextUpdate).toISOString(),
    now: new Date(now).toISOString(),
  });
}

function stays(inForce: number): string {
  return inForce === 0 ? 'no certificate is revoked until it is' : `the ${inForce} lists of before stay in force`;
}

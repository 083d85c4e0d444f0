import type { X509Certificate } from 'node:crypto';
import * as der from '../../identity/der.ts';

/** Tells whether a certificate is revoked. Throws when that cannot be told. */
export type IsRevoked = (certificate: X509Certificate) => boolean;

/**
 * What the revocation lists of an operator say (RFC 5280 §5.1), PEM. They are believed as the key beside them is, whatever
 * their age; agents verify their signatures, this only decides who may call.
 */
export function revocationsOf(listsPem: string | null): IsRevoked {
  if (listsPem === null) return () => false;
  let revoked: ReadonlySet<string> | null = null;
  return (certificate) => {
    revoked ??= readLists(listsPem);
    // version, serial number, signature, issuer, …
    const [, serial, , issuer] = der.elements(der.elements(der.elements(certificate.raw)[0]!.content)[0]!.content);
    return revoked.has(entryOf(issuer!, serial!));
  };
}

const PEM = /-----BEGIN X509 CRL-----([^-]+)-----END X509 CRL-----/g;

/** @throws Error when one cannot be read */
function readLists(pem: string): Set<string> {
  const revoked = new Set<string>();
  if (pem.search(PEM) < 0 && pem.trim() !== '')
    throw new Error('there is no revocation list in PEM, so no certificate is believed');
  for (const [, base64 = ''] of pem.matchAll(PEM)) {
    try {
      for (const entry of readList(Buffer.from(base64, 'base64'))) revoked.add(entry);
    } catch (cause) {
      throw new Error('a revocation list cannot be read, so no certificate is believed', { cause });
    }
  }
  return revoked;
}

function readList(bytes: Buffer): string[] {
  const fields = der.elements(der.elements(der.elements(bytes)[0]!.content)[0]!.content);
  // [version], signature, issuer, this update, [next update], [revoked certificates], [extensions]
  const from = fields[0]?.tag === der.TAG.integer ? 1 : 0;
  const issuer = fields[from + 1];
  const isTime = (tag: number | undefined) => tag === der.TAG.utcTime || tag === der.TAG.generalizedTime;
  if (issuer?.tag !== der.TAG.sequence || !isTime(fields[from + 2]?.tag)) throw new RangeError('not a revocation list');
  const list = fields[isTime(fields[from + 3]?.tag) ? from + 4 : from + 3];
  if (list?.tag !== der.TAG.sequence) return [];
  return der.elements(list.content).map(({ content }) => entryOf(issuer, der.elements(content)[0]!));
}

function entryOf(issuer: der.Element, serial: der.Element): string {
  return `${issuer.whole.toString('base64')} ${serial.content.toString('hex')}`;
}

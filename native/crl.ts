import { addon } from './load.ts';

/** What a revocation list says of itself. */
export interface CrlSummary {
  /** RFC 2253. */
  readonly issuer: string;
  /** How many certificates it revokes. */
  readonly revoked: number;
  /** When there should be a newer one, ms since 1970; null when it does not say. */
  readonly nextUpdate: number | null;
}

/**
 * The lists in a file: any number as PEM, where blocks of other kinds are skipped, or one as DER; none in an empty file.
 * They are read beside the loops, and once for all threads of the process that are given the same bytes.
 * Rejects with an Error that says what cannot be read.
 */
export const readCrls = (addon as { readCrls(bytes: Uint8Array): Promise<CrlSummary[]> }).readCrls;

/** A certificate chain and its roots, PEM. */
export type PemChain = readonly [chain: string, roots: string];

/**
 * Which of some chains the lists in a file revoke, as `readCrls` understands it. The chains are believed to be valid.
 * @throws Error saying what cannot be read
 */
export const revokedAmong = (addon as { revokedAmong(bytes: Uint8Array, chains: readonly PemChain[]): boolean[] })
  .revokedAmong;

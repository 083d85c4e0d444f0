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
 * @throws Error saying what cannot be read
 */
export const readCrls = (addon as { readCrls(bytes: Uint8Array): CrlSummary[] }).readCrls;

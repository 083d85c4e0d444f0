/** When a certificate is renewed, and how long a failed attempt waits for the next (§8.5). */
export interface RenewalPolicy {
  /** The time, in ms since 1970, at which a certificate that is new at `now` should be renewed. */
  renewAt(certificate: { readonly notBefore: number; readonly notAfter: number }, now: number): number;
  /** Whole ms to wait after the given number of failures in a row, which is at least 1. */
  backOff(failures: number): number;
}

/** @param random from 0 up to, not including, 1 */
export function createRenewalPolicy(random: () => number): RenewalPolicy {
  /** Evenly between 1 − share and 1 + share. */
  const around = (share: number) => 1 + share * (2 * random() - 1);
  return {
    renewAt({ notBefore, notAfter }, now) {
      // Half of what is left, not of all of it: a certificate dated back by more than it is valid for would always be due.
      const start = Math.max(notBefore, now);
      const half = (notAfter - start) * HALF_LIFE;
      return Math.max(start + Math.round(half * around(RENEWAL_JITTER)), now + MIN_RENEWAL_MS);
    },
    backOff: (failures) => Math.min(Math.round(FIRST_MS * 2 ** (failures - 1) * around(BACK_OFF_JITTER)), LAST_MS),
  };
}

const HALF_LIFE = 0.5;
/** Spreads the renewals of pods that started together. */
const RENEWAL_JITTER = 0.1;
const MIN_RENEWAL_MS = 1000;
const FIRST_MS = 1000;
const LAST_MS = 150_000;
const BACK_OFF_JITTER = 0.2;

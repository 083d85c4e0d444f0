import { CulvertError, messageOf } from '../errors.ts';
import type { CertificateAuthorityClient, WorkloadCertificate } from './certificate.ts';
import {
  bringForward,
  type CertificateState,
  describe,
  type Entry,
  hasten,
  mostUrgent,
  newEntry,
  nextWake,
  type Priority,
  validCertificate,
} from './certificate-entry.ts';
import { createRenewalPolicy } from './renewal.ts';
import { parseSpiffeId } from './spiffe.ts';

export type { CertificateState, Priority } from './certificate-entry.ts';

/** Told of every new certificate, and with null when an identity's certificate is dropped or has expired without a new one. */
export type CertificateListener = (identity: string, certificate: WorkloadCertificate | null) => void;

/** Keeps a valid certificate for every identity that somebody asked for (§8.5). */
export interface CertificateManager {
  /**
   * The certificate of an identity; waits for the first one. Without a valid one every call leads to an attempt, so a CA
   * that is back is used at once, but one identity is not attempted twice within a second.
   * Rejects with CulvertError IDENTITY_INVALID, CERTIFICATE_UNAVAILABLE, IDENTITY_FORGOTTEN or CERTIFICATES_CLOSED.
   */
  get(identity: string): Promise<WorkloadCertificate>;
  /** Has the certificate fetched before it is needed. @throws CulvertError IDENTITY_INVALID */
  prefetch(identity: string): void;
  /** Calls the listener for every change from now on; returns what ends that. */
  watch(listener: CertificateListener): () => void;
  /** The CA is another: certificates are replaced soon, not all at once. Until then those of before stay in use. */
  renewAll(): void;
  /**
   * Other revocation lists are in force: certificates that they revoke are not used any more, and others are asked for at
   * once. Resolves when all were looked at, some at a time.
   */
  reviewRevocations(): Promise<void>;
  /** Drops the certificate unless it is wanted again within the grace period: pods of one identity come and go. */
  forget(identity: string): void;
  /** Every identity, sorted. */
  list(): CertificateState[];
  /** Ends everything; waiting calls are rejected. */
  close(): void;
}

/** Time and timers; `schedule` returns what cancels it. */
export interface Clock {
  /** ms since 1970. */
  now(): number;
  schedule(delayMs: number, action: () => void): () => void;
}

export interface CertificateManagerOptions {
  readonly authority: CertificateAuthorityClient;
  readonly log: ManagerLog;
  /** Which of some certificates the revocation lists in force revoke; none by default. */
  readonly revoked?: (certificates: readonly WorkloadCertificate[]) => readonly boolean[];
  readonly clock?: Clock;
  /** From 0 up to, not including, 1. */
  readonly random?: () => number;
}

/** The part of the logger that is used. */
export interface ManagerLog {
  error(target: string, message: string, fields: { identity: string }): void;
  warn(target: string, message: string, fields: { identity: string }): void;
  debug(target: string, message: string, fields: { identity: string }): void;
}

/** The incumbent's limit; keeps a node with hundreds of pods from flooding the CA. */
export const CONCURRENT_REQUESTS = 8;
/** A request that a CA has not answered by then counts as failed, so that connections do not wait for ever. */
export const ATTEMPT_TIMEOUT_MS = 10_000;
/** Spreads the renewals when the CA has changed. */
export const RENEW_ALL_WITHIN_MS = 30_000;
/** Long enough for a rollout to bring the same identity back. */
export const FORGET_GRACE_MS = 5 * 60_000;

export function createCertificateManager({
  authority,
  log,
  revoked = (certificates) => certificates.map(() => false),
  clock = systemClock,
  random = Math.random,
}: CertificateManagerOptions): CertificateManager {
  const entries = new Map<string, Entry>();
  const listeners = new Set<CertificateListener>();
  const renewal = createRenewalPolicy(random);
  let running = 0;
  /** Counts the changes of the CA. */
  let changes = 0;
  let closed = false;
  let cancelTimer = () => {};
  let lastRead = clock.now();

  /** A clock that was set back must not put off what is due: it stays due in as much time as at the last reading. */
  function readClock(): number {
    const now = clock.now();
    if (now < lastRead) for (const entry of entries.values()) bringForward(entry, lastRead - now);
    lastRead = now;
    return now;
  }

  function want(identity: string, priority: Priority, now: number): Entry {
    if (closed) throw closedError();
    parseSpiffeId(identity);
    let entry = entries.get(identity);
    if (entry === undefined) {
      entry = newEntry(identity, priority, now);
      entries.set(identity, entry);
    }
    if (entry.dropAt !== Number.POSITIVE_INFINITY) {
      entry.dropAt = Number.POSITIVE_INFINITY;
      turn(); // its renewal may be due since it was forgotten
    }
    return entry;
  }

  /** Starts what is due, as far as there is room, and sets the one timer for what comes next. */
  function turn(): void {
    cancelTimer();
    if (closed) return;
    const now = readClock();
    for (const entry of entries.values()) if (entry.dropAt <= now) drop(entry);
    while (running < CONCURRENT_REQUESTS) {
      const next = mostUrgent(entries.values(), now);
      if (next === null) break;
      start(next);
    }
    const wake = nextWake(entries.values(), running < CONCURRENT_REQUESTS);
    // Timers know nothing of a clock that is set, nor of the time that a machine sleeps; waking early only leads back here.
    if (wake !== null) cancelTimer = clock.schedule(Math.min(Math.max(wake - now, 0), LONGEST_SLEEP_MS), turn);
  }

  function start(entry: Entry): void {
    const { identity } = entry;
    const { priority } = entry.attempt;
    const before = changes;
    let settled = false;
    const settle = (outcome: () => void) => {
      if (settled) return;
      settled = true;
      cancelTimeout();
      running--;
      if (!closed && entries.get(entry.identity) === entry) outcome();
      turn();
    };
    const cancelTimeout = clock.schedule(ATTEMPT_TIMEOUT_MS, () =>
      settle(() => failed(entry, new Error(`no answer within ${ATTEMPT_TIMEOUT_MS / 1000} s`))),
    );
    running++;
    entry.attempt = { kind: 'running', priority };
    log.debug(TARGET, `requesting a certificate (${priority})`, { identity });
    Promise.try(() => authority.sign(entry.identity)).then(
      (certificate) => settle(() => received(entry, certificate, changes === before)),
      (error: unknown) => settle(() => failed(entry, error)),
    );
  }

  /** Not all at once. */
  function soon(now: number): number {
    return now + random() * RENEW_ALL_WITHIN_MS;
  }

  /** @param isCurrent whether the CA is the one that was asked */
  function received(entry: Entry, certificate: WorkloadCertificate, isCurrent: boolean): void {
    const now = readClock();
    const fault =
      unusable(certificate, entry.identity, now) ?? (revoked([certificate])[0] ? revokedText(certificate) : null);
    if (fault !== null) {
      failed(entry, new Error(fault));
      return;
    }
    entry.certificate = certificate;
    entry.failures = 0;
    entry.error = null;
    entry.earliestRetry = now;
    const at = renewal.renewAt(certificate, now);
    entry.attempt = { kind: 'scheduled', priority: 'background', at: isCurrent ? at : Math.min(at, soon(now)) };
    for (const { resolve } of entry.waiters.splice(0)) resolve(certificate);
    for (const listener of listeners) listener(entry.identity, certificate);
  }

  function failed(entry: Entry, cause: unknown): void {
    const now = readClock();
    const reason = messageOf(cause);
    entry.failures++;
    entry.error = reason;
    entry.earliestRetry = now + MIN_SPACING_MS;
    let at = now + renewal.backOff(entry.failures);
    const current = validCertificate(entry, now);
    if (current !== null) at = Math.min(at, current.notAfter);
    const kept =
      current === null
        ? `no certificate from ${authority.name} (${reason})`
        : `certificate renewal failed (${reason}); retaining existing valid certificate until ${iso(current.notAfter)}`;
    log.warn(TARGET, `${kept}; next retry at ${iso(at)}`, { identity: entry.identity });
    entry.attempt = { kind: 'scheduled', priority: 'background', at };
    // Who holds it forgets it, and its next connection asks again.
    if (current === null && entry.certificate !== null) {
      entry.certificate = null;
      for (const listener of listeners) listener(entry.identity, null);
    }
    const error = unavailable(entry.identity, authority.name, reason, cause);
    for (const { reject } of entry.waiters.splice(0)) reject(error);
  }

  /** Peers that follow the list refuse it anyway, and whoever has put it there wants it out of use. */
  function revoke(entry: Entry, certificate: WorkloadCertificate): void {
    const now = readClock();
    entry.certificate = null;
    entry.error = revokedText(certificate);
    log.error(TARGET, `${entry.error}; it is no longer used, and another one is asked for`, {
      identity: entry.identity,
    });
    hasten(entry, 'realtime', now);
    for (const listener of listeners) listener(entry.identity, null);
  }

  function drop(entry: Entry): void {
    entries.delete(entry.identity);
    const error = new CulvertError('IDENTITY_FORGOTTEN', `${entry.identity}: the identity is no longer needed`);
    for (const { reject } of entry.waiters.splice(0)) reject(error);
    if (entry.certificate !== null) for (const listener of listeners) listener(entry.identity, null);
  }

  return {
    async get(identity) {
      const now = readClock();
      const entry = want(identity, 'realtime', now);
      const certificate = validCertificate(entry, now);
      if (certificate !== null) return certificate;
      hasten(entry, 'realtime', now);
      const { promise, resolve, reject } = Promise.withResolvers<WorkloadCertificate>();
      entry.waiters.push({ resolve, reject });
      if (running < CONCURRENT_REQUESTS) turn();
      return promise;
    },
    prefetch(identity) {
      const now = readClock();
      const entry = want(identity, 'warmup', now);
      if (entry.certificate === null && entry.failures === 0) hasten(entry, 'warmup', now);
      if (running < CONCURRENT_REQUESTS) turn();
    },
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    renewAll() {
      const now = readClock();
      changes++;
      for (const { attempt } of entries.values()) {
        if (attempt.kind === 'scheduled') attempt.at = Math.min(attempt.at, soon(now));
      }
      turn();
    },
    async reviewRevocations() {
      const all = [...entries.values()];
      for (let at = 0; at < all.length; at += REVIEWED_AT_ONCE) {
        const held = all.slice(at, at + REVIEWED_AT_ONCE).flatMap((entry) => {
          const { certificate } = entry;
          return certificate === null || entries.get(entry.identity) !== entry ? [] : [{ entry, certificate }];
        });
        const verdicts = revoked(held.map(({ certificate }) => certificate));
        for (const [index, { entry, certificate }] of held.entries()) {
          if (verdicts[index]) revoke(entry, certificate);
        }
        turn();
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    forget(identity) {
      const entry = entries.get(identity);
      if (entry === undefined) return;
      entry.dropAt = readClock() + FORGET_GRACE_MS;
      turn();
    },
    list: () =>
      [...entries.values()]
        .sort((a, b) => (a.identity < b.identity ? -1 : 1))
        .map((entry) => describe(entry, readClock())),
    close() {
      closed = true;
      cancelTimer();
      for (const entry of entries.values()) for (const { reject } of entry.waiters.splice(0)) reject(closedError());
      entries.clear();
      listeners.clear();
    },
  };
}

const TARGET = 'identity::manager';
/** Least time between the end of a failed attempt and the next for the same identity, however many connections ask. */
const MIN_SPACING_MS = 1000;
const LONGEST_SLEEP_MS = 60_000;
/** A few ms of work. */
const REVIEWED_AT_ONCE = 32;

function unusable(certificate: WorkloadCertificate, identity: string, now: number): string | null {
  if (certificate.identity !== identity) return `the certificate is for ${certificate.identity}`;
  const clock = `this node's clock says ${iso(now)}`;
  if (now < certificate.notBefore) return `certificate not valid before ${iso(certificate.notBefore)}; ${clock}`;
  return now < certificate.notAfter ? null : `certificate expired at ${iso(certificate.notAfter)}; ${clock}`;
}

function revokedText({ serial }: WorkloadCertificate): string {
  return `certificate ${serial} of this agent is revoked by a list in CRL_PATH`;
}

function unavailable(identity: string, authority: string, reason: string, cause: unknown): CulvertError {
  return new CulvertError('CERTIFICATE_UNAVAILABLE', `no certificate for ${identity} from ${authority}: ${reason}`, {
    cause,
  });
}

function closedError(): CulvertError {
  return new CulvertError('CERTIFICATES_CLOSED', 'the agent is stopping and issues no more certificates');
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

const systemClock: Clock = {
  now: Date.now,
  schedule(delayMs, action) {
    // Unreferenced: a renewal that is due tomorrow must not keep a process that has nothing else to do.
    const timer = setTimeout(action, delayMs).unref();
    return () => clearTimeout(timer);
  },
};

import type { WorkloadCertificate } from './certificate.ts';

/** Why a certificate is wanted, most urgent first: a connection waits; a pod is there and will connect; a renewal. */
export type Priority = 'realtime' | 'warmup' | 'background';

/** What is known of one identity, for the config dump. */
export type CertificateState = { readonly identity: string } & (
  | { readonly state: 'Initializing'; readonly priority: Priority }
  | { readonly state: 'Available'; readonly certificate: WorkloadCertificate; readonly renewAt: number }
  | { readonly state: 'Unavailable'; readonly error: string; readonly retryAt: number }
);

/** One identity: its certificate, if any, and the next attempt to get one, which there always is. */
export interface Entry {
  readonly identity: string;
  certificate: WorkloadCertificate | null;
  attempt: { kind: 'scheduled'; priority: Priority; at: number } | { kind: 'running'; priority: Priority };
  /** Failed attempts since the last success. */
  failures: number;
  error: string | null;
  earliestRetry: number;
  /** When a forgotten identity goes; infinite while it is wanted. */
  dropAt: number;
  readonly waiters: { resolve(certificate: WorkloadCertificate): void; reject(error: Error): void }[];
}

/** An identity whose first attempt is due at once. */
export function newEntry(identity: string, priority: Priority, now: number): Entry {
  return {
    identity,
    certificate: null,
    attempt: { kind: 'scheduled', priority, at: now },
    failures: 0,
    error: null,
    earliestRetry: now,
    dropAt: Number.POSITIVE_INFINITY,
    waiters: [],
  };
}

/** Moves the next attempt forward; never makes it later or less urgent. */
export function hasten({ attempt, earliestRetry }: Entry, priority: Priority, now: number): void {
  if (attempt.kind === 'running') return;
  attempt.at = Math.min(attempt.at, Math.max(now, earliestRetry));
  if (RANK[priority] < RANK[attempt.priority]) attempt.priority = priority;
}

/** Has everything that is due at some time be due by so many ms earlier. */
export function bringForward(entry: Entry, ms: number): void {
  entry.earliestRetry -= ms;
  entry.dropAt -= ms;
  if (entry.attempt.kind === 'scheduled') entry.attempt.at -= ms;
}

/** Of what is due the most urgent, and of equals the longest due. */
export function mostUrgent(entries: Iterable<Entry>, now: number): Entry | null {
  let best: Entry | null = null;
  for (const entry of entries) {
    if (dueAt(entry) <= now && (best === null || isBefore(entry, best))) best = entry;
  }
  return best;
}

/** When there is something to do next, or null; attempts count only while there is room for one. */
export function nextWake(entries: Iterable<Entry>, room: boolean): number | null {
  let wake = Number.POSITIVE_INFINITY;
  for (const entry of entries) wake = Math.min(wake, entry.dropAt, room ? dueAt(entry) : wake);
  return wake === Number.POSITIVE_INFINITY ? null : wake;
}

/** The certificate if it may be used now. */
export function validCertificate({ certificate }: Entry, now: number): WorkloadCertificate | null {
  return certificate !== null && now >= certificate.notBefore && now < certificate.notAfter ? certificate : null;
}

/** What the config dump tells about it. */
export function describe(entry: Entry, now: number): CertificateState {
  const { identity, attempt } = entry;
  const at = attempt.kind === 'scheduled' ? attempt.at : now;
  const certificate = validCertificate(entry, now);
  if (certificate !== null) return { identity, state: 'Available', certificate, renewAt: at };
  if (entry.error === null) return { identity, state: 'Initializing', priority: attempt.priority };
  return { identity, state: 'Unavailable', error: entry.error, retryAt: at };
}

const RANK: Readonly<Record<Priority, number>> = { realtime: 0, warmup: 1, background: 2 };

/** Infinite while an attempt is running, and for a forgotten identity unless somebody still waits for its certificate. */
function dueAt({ attempt, dropAt, waiters }: Entry): number {
  const wanted = dropAt === Number.POSITIVE_INFINITY || waiters.length > 0;
  return attempt.kind === 'scheduled' && wanted ? attempt.at : Number.POSITIVE_INFINITY;
}

function isBefore(a: Entry, b: Entry): boolean {
  const difference = RANK[a.attempt.priority] - RANK[b.attempt.priority];
  return difference === 0 ? dueAt(a) < dueAt(b) : difference < 0;
}

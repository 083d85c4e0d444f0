import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { CulvertError, messageOf } from '../../errors.ts';
import { type CaMaterial, readCaMaterial } from '../../identity/ca-material.ts';
import { splitCertificates } from '../../identity/pem.ts';
import { createRoot } from '../../identity/self-signed-root.ts';
import { privateKeyPem } from '../../identity/workload-key.ts';

/**
 * The roots of a mesh that makes its own, as pure data and decisions.
 *
 * A root is replaced in steps, so that at each moment every certificate that is in use leads to a root that everybody trusts:
 * the next root is published, and signs only when no certificate is left whose owner has not heard of it; the old root
 * stays published until nothing that it has signed can be valid. Agents hear of roots with each certificate, so both
 * times are the longest validity of certificates. (The incumbent replaces the certificate alone and keeps the key for ever.)
 */
export interface RootState {
  readonly active: Root;
  readonly next: { readonly root: Root; readonly since: number } | null;
  /** Roots that sign no more; trusted until then. */
  readonly retired: readonly { readonly cert: X509Certificate; readonly until: number }[];
  /** Trusted as well, because an operator has added them. */
  readonly further: readonly X509Certificate[];
  /** Fingerprints of the roots that have signed before, the latest last: a replica that was away knows its own by them. */
  readonly former: readonly string[];
}

export interface Root {
  readonly cert: X509Certificate;
  readonly key: KeyObject;
}

export interface RotationPolicy {
  readonly trustDomain: string;
  /** Of a new root, in ms. */
  readonly lifeMs: number;
  /** A root is replaced when this share of its life is left, 0 … 1 … */
  readonly graceShare: number;
  /** … or twice this: the longest validity of certificates, in ms. */
  readonly overlapMs: number;
}

export async function newRootState(policy: RotationPolicy, now: number): Promise<RootState> {
  return { active: await newRoot(policy, now), next: null, retired: [], further: [], former: [] };
}

async function newRoot({ trustDomain, lifeMs }: RotationPolicy, now: number): Promise<Root> {
  const { certPem, key } = await createRoot(trustDomain, now, lifeMs);
  return { cert: new X509Certificate(certPem), key };
}

/** What a step of a rotation does, as the log says it. */
export type RotationStep = 'publish the next root' | 'sign with the next root' | 'forget the old root';

/** The next step that is due; null when there is none. @param isAsked whether an operator wants the root replaced */
export async function rotate(
  state: RootState,
  policy: RotationPolicy,
  now: number,
  isAsked: boolean,
): Promise<{ readonly step: RotationStep; readonly state: RootState } | null> {
  const { active, next, retired, former } = state;
  if (next !== null && now >= switchAt(active, next.since, policy)) {
    const until = Math.min(now + policy.overlapMs, endOf(active.cert));
    return {
      step: 'sign with the next root',
      state: {
        ...state,
        active: next.root,
        next: null,
        retired: [...retired, { cert: active.cert, until }],
        former: [...former, active.cert.fingerprint256].slice(-MAX_FORMER),
      },
    };
  }
  const kept = retired.filter(({ until }) => now < until);
  if (kept.length < retired.length) return { step: 'forget the old root', state: { ...state, retired: kept } };
  if (next === null && (isAsked || now >= renewAt(active.cert, policy))) {
    return {
      step: 'publish the next root',
      state: { ...state, next: { root: await newRoot(policy, now), since: now } },
    };
  }
  return null;
}

const MAX_FORMER = 20;

/** Early enough for both waits; a root that lives too short for that is replaced at half its life. */
function renewAt(cert: X509Certificate, { graceShare, overlapMs }: RotationPolicy): number {
  const life = endOf(cert) - cert.validFromDate.getTime();
  return endOf(cert) - Math.min(Math.max(graceShare * life, 2 * overlapMs), life / 2);
}

/** Halfway to the end of the old root when it ends too soon for the whole wait: its certificates end with it. */
function switchAt({ cert }: Root, since: number, { overlapMs }: RotationPolicy): number {
  return Math.min(since + overlapMs, (since + endOf(cert)) / 2);
}

function endOf(cert: X509Certificate): number {
  return cert.validToDate.getTime();
}

/** All that are trusted, the one that signs first. */
function bundleOf({ active, next, retired, further }: RootState): string {
  const all = [active.cert, ...(next === null ? [] : [next.root.cert]), ...retired.map(({ cert }) => cert), ...further];
  return [...new Set(all.map(String))].join('');
}

/** What signs and what is trusted. @throws CulvertError CA_INVALID */
export function materialOf(state: RootState, where: string): CaMaterial {
  const certPem = state.active.cert.toString();
  const key = privateKeyPem(state.active.key);
  return readCaMaterial({ cert: certPem, key, chain: certPem, roots: bundleOf(state) }, where);
}

/** The data of the Secret, as istiod has it (control-02 §4.3), and what belongs to a rotation. */
const FILE = {
  cert: 'ca-cert.pem',
  key: 'ca-key.pem',
  roots: 'root-cert.pem',
  nextCert: 'next-cert.pem',
  nextKey: 'next-key.pem',
  rotation: 'rotation.json',
} as const;

/** Every key of the data that a state decides about; null for one that must not be there. */
export function formatRootState(state: RootState): Record<string, string | null> {
  const { active, next, retired, former } = state;
  const rotation = {
    next: next === null ? null : { since: iso(next.since) },
    retired: retired.map(({ cert, until }) => ({ fingerprint: cert.fingerprint256, until: iso(until) })),
    former,
  };
  return {
    [FILE.cert]: active.cert.toString(),
    [FILE.key]: privateKeyPem(active.key),
    [FILE.roots]: bundleOf(state),
    [FILE.nextCert]: next?.root.cert.toString() ?? null,
    [FILE.nextKey]: next === null ? null : privateKeyPem(next.root.key),
    [FILE.rotation]: JSON.stringify(rotation),
  };
}

/** Reads the data of the Secret; istiod's is read as well. @throws CulvertError CA_INVALID that names the key of the data */
export function parseRootState(data: Readonly<Record<string, string>>, where: string): RootState {
  const active = readRoot(data, FILE.cert, FILE.key, where);
  const rotation = readRotation(data[FILE.rotation] ?? '', where);
  const next =
    rotation.nextSince === null
      ? null
      : { root: readRoot(data, FILE.nextCert, FILE.nextKey, where), since: rotation.nextSince };
  const known = [active.cert, ...(next === null ? [] : [next.root.cert])].map(({ fingerprint256 }) => fingerprint256);
  const others = readCertificates(data, FILE.roots, where).filter((it) => !known.includes(it.fingerprint256));
  const untilOf = ({ fingerprint256 }: X509Certificate) => rotation.retired.get(fingerprint256);
  const state: RootState = {
    active,
    next,
    retired: others.flatMap((cert) => {
      const until = untilOf(cert);
      return until === undefined ? [] : [{ cert, until }];
    }),
    further: others.filter((cert) => untilOf(cert) === undefined),
    former: rotation.former,
  };
  // Checked as strictly as a verifying peer would.
  materialOf(state, where);
  if (next !== null) materialOf({ ...state, active: next.root }, where);
  return state;
}

function readRoot(data: Readonly<Record<string, string>>, certFile: string, keyFile: string, where: string): Root {
  const [cert] = readCertificates(data, certFile, where);
  if (cert === undefined) throw invalid(where, `${certFile} has no certificate`);
  try {
    return { cert, key: createPrivateKey(data[keyFile] ?? '') };
  } catch (cause) {
    throw invalid(where, `${keyFile} is not a private key in PEM`, cause);
  }
}

function readCertificates(data: Readonly<Record<string, string>>, file: string, where: string): X509Certificate[] {
  try {
    return splitCertificates(data[file] ?? '').map((pem) => new X509Certificate(pem));
  } catch (cause) {
    throw invalid(where, `${file} has a certificate that cannot be read (${messageOf(cause)})`, cause);
  }
}

function readRotation(text: string, where: string) {
  if (text === '') return { nextSince: null, retired: new Map<string, number>(), former: [] };
  try {
    const { next, retired, former } = JSON.parse(text) as {
      next: { since: string } | null;
      retired: { fingerprint: string; until: string }[];
      former: string[];
    };
    return {
      nextSince: next === null ? null : time(next.since),
      retired: new Map(retired.map(({ fingerprint, until }) => [fingerprint, time(until)])),
      former: former.map(String),
    };
  } catch (cause) {
    throw invalid(where, `${FILE.rotation} cannot be read`, cause);
  }
}

function time(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new RangeError('not a time');
  return ms;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

function invalid(where: string, what: string, cause?: unknown): CulvertError {
  return new CulvertError('CA_INVALID', `the CA in ${where} cannot be used: ${what}`, { cause });
}

import { generateKeyPairSync } from 'node:crypto';
import type { TestContext } from 'node:test';
import type { WorkloadCertificate } from '../../src/identity/certificate.ts';
import { type CertificateManager, createCertificateManager } from '../../src/identity/manager.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;

/** A request that the CA has been sent and not answered yet. */
export interface Request {
  readonly identity: string;
  /** Answers with a certificate that is valid from now on for the given time. */
  issue(ttl?: number, changes?: Partial<WorkloadCertificate>): Promise<WorkloadCertificate>;
  fail(reason: string): Promise<void>;
}

export interface Bench {
  readonly manager: CertificateManager;
  readonly clock: FakeClock;
  /** Requests that wait for their answer, oldest first. */
  readonly requests: Request[];
  /** The oldest waiting request, taken off the list. */
  next(): Request;
  /** How many requests the CA has been sent in all. */
  sent(): number;
  readonly logged: string[];
  /** Serial numbers that revocation lists name. */
  readonly revoked: Set<string>;
}

export function identity(name: string): string {
  return `spiffe://cluster.local/ns/default/sa/${name}`;
}

/** A manager whose CA answers when the test says so, on a clock that stands still. `random` is 0.5: no jitter. */
export function createBench(t: TestContext, options: { random?: () => number } = {}): Bench {
  const clock = createFakeClock();
  const requests: Request[] = [];
  const logged: string[] = [];
  const revoked = new Set<string>();
  let sent = 0;
  const manager = createCertificateManager({
    authority: {
      name: 'test CA',
      close() {},
      sign(wanted) {
        sent++;
        const { promise, resolve, reject } = Promise.withResolvers<WorkloadCertificate>();
        requests.push({
          identity: wanted,
          async issue(ttl = 24 * HOUR, changes = {}) {
            const certificate = makeCertificate(wanted, clock.now(), ttl, changes);
            resolve(certificate);
            await clock.advance(0);
            return certificate;
          },
          async fail(reason) {
            reject(new Error(reason));
            await clock.advance(0);
          },
        });
        return promise;
      },
    },
    log: {
      error: (_target, message) => logged.push(message),
      warn: (_target, message) => logged.push(message),
      debug: () => {},
    },
    revoked: (certificates) => certificates.map(({ serial }) => revoked.has(serial)),
    clock,
    random: options.random ?? (() => 0.5),
  });
  t.after(() => manager.close());
  const next = () => {
    const request = requests.shift();
    if (request === undefined) throw new Error('the CA has no waiting request');
    return request;
  };
  return { manager, clock, requests, next, sent: () => sent, logged, revoked };
}

const KEY = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
let serial = 0;

function makeCertificate(
  wanted: string,
  now: number,
  ttl: number,
  changes: Partial<WorkloadCertificate>,
): WorkloadCertificate {
  return {
    identity: wanted,
    privateKey: KEY,
    chainPem: 'chain',
    rootsPem: 'roots',
    notBefore: now,
    notAfter: now + ttl,
    serial: String(++serial),
    ...changes,
  };
}

import { messageOf } from '../../errors.ts';
import { generateWorkloadKey, privateKeyPem } from '../../identity/workload-key.ts';
import type { Logger } from '../../log/logger.ts';
import { createCaretaker } from '../caretaker.ts';
import type { ServingCertificate } from '../server.ts';
import type { CertificateAuthority } from './certificate-authority.ts';

export interface ServingCertificateOptions {
  readonly ca: CertificateAuthority;
  /** DNS names and IP addresses. */
  readonly names: readonly string[];
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** ms since 1970 */
  readonly now?: () => number;
  readonly ttlMs?: number;
  /** How often it is looked whether it is due, in ms. */
  readonly checkMs?: number;
}

/** Rejects when it cannot be used; another one is made then, after a while. */
export type UseCertificate = (certificate: ServingCertificate) => Promise<void>;

/**
 * A certificate of the mesh's own CA for the control plane itself: a new one at half of its life, and whenever the CA has
 * changed or the clock was set back. The first is handed to `use` once there is a CA; until one can be made and is taken,
 * that of before stays.
 */
export function keepServingCertificate(
  { ca, names, log, now = Date.now, ttlMs = TTL_MS, checkMs = 60_000 }: ServingCertificateOptions,
  use: UseCertificate,
): { close(): void } {
  let madeAt = 0;
  let renewAt = 0;
  /** Counts the changes of the CA, and up to which of them the certificate is. */
  let changes = 0;
  let upTo = -1;
  const caretaker = createCaretaker(
    async () => {
      const time = now();
      // One that was made before the clock was set back may not be valid yet.
      const isInTime = madeAt <= time && time < renewAt;
      if (ca.rootsPem() === null || (isInTime && upTo === changes)) return;
      const change = changes;
      const { publicKey, privateKey } = await generateWorkloadKey();
      const { certPem, intermediatesPem, rootsPem, notAfter } = await ca.issue(
        { names: names.toSorted(), commonName: null, ttlMs },
        publicKey,
      );
      await use({
        chainPem: certPem + intermediatesPem.join(''),
        keyPem: privateKeyPem(privateKey),
        clientRootsPem: rootsPem,
      });
      madeAt = time;
      renewAt = (time + notAfter) / 2;
      upTo = change;
      log.info('control::ca', 'the control plane has a new serving certificate', {
        names: names.join(','),
        until: new Date(notAfter).toISOString(),
      });
    },
    {
      everyMs: checkMs,
      failed(error, waitMs) {
        log.warn('control::ca', 'there is no new serving certificate, that of before stays in use', {
          error: messageOf(error),
          wait_ms: waitMs,
        });
      },
    },
  );
  ca.onChange(() => {
    changes++;
    caretaker.tend();
  });
  caretaker.tend();
  return caretaker;
}

const TTL_MS = 7 * 86_400_000;

/**
 * The names that agents know a control plane by: its own Service's, and those of istiod, so that an agent in its default
 * settings verifies it (control-02 §4.4).
 */
export function servingNames(namespace: string, service: string, further: readonly string[] = []): string[] {
  const own = [`${service}.${namespace}.svc`, `${service}.${namespace}.svc.cluster.local`];
  const istiods = ['istiod', 'istiod-remote', 'istio-pilot'].map((name) => `${name}.${namespace}.svc`);
  return [...new Set([...own, ...istiods, 'istiod.istio-system.svc', ...further])];
}

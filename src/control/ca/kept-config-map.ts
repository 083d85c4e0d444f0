import { messageOf } from '../../errors.ts';
import { isConflict, type KubeApi } from '../../kube/api.ts';
import { fields, labels, metadataOf, text } from '../../kube/object.ts';
import { startReflector } from '../../kube/reflector.ts';
import type { Logger } from '../../log/logger.ts';
import { createCaretaker } from '../caretaker.ts';
import type { Lease } from '../lease.ts';

export interface KeptConfigMapOptions {
  readonly api: Pick<KubeApi, 'get' | 'lines' | 'create' | 'mergePatch'>;
  readonly namespace: string;
  readonly name: string;
  /** The key of its data that is kept; others are left alone. */
  readonly key: string;
  /** What it has to say; null while that is not known. */
  readonly value: () => string | null;
  /** Only its holder writes. */
  readonly lease: Lease;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

export interface KeptConfigMap {
  /** The value may have changed. */
  update(): void;
  close(): void;
}

/**
 * An annotation of the ConfigMap of roots, whatever its value, that permits a root which agents do not trust; it goes when
 * the new root is published.
 */
export const ALLOW_NEW_ROOT = 'culvert.io/allow-new-root';

/** The names that agents mount (control-02 §4.5). */
export const TRUST_BUNDLE = { name: 'istio-ca-root-cert', key: 'root-cert.pem' } as const;
export const REVOCATION_LISTS = { name: 'istio-ca-crl', key: 'ca-crl.pem' } as const;

/** A ConfigMap that always says what it has to: it is made when it is missing, and restored when it is edited. */
export function keepConfigMap(options: KeptConfigMapOptions): KeptConfigMap {
  const { api, namespace, name, key, value, lease, log } = options;
  const collection = `/api/v1/namespaces/${namespace}/configmaps`;
  let found: { readonly said: string | null; readonly version: string } | 'missing' | 'unknown' = 'unknown';
  const caretaker = createCaretaker(step, {
    everyMs: 300_000,
    failed(error, waitMs) {
      log.warn('control::ca', 'a ConfigMap cannot be written, trying again', {
        configmap: `${namespace}/${name}`,
        error: messageOf(error),
        wait_ms: waitMs,
      });
    },
  });
  const reflector = startReflector<{ said: string | null; version: string }>({
    api,
    path: collection,
    query: { fieldSelector: `metadata.name=${name}` },
    key: (object) => text(metadataOf(object).name),
    read: (object) => ({
      said: labels(fields(object).data)[key] ?? null,
      version: text(metadataOf(object).resourceVersion),
    }),
    onChange(_before, after) {
      found = after ?? 'missing';
      caretaker.tend();
    },
    log,
  });
  void reflector.synced.then(() => {
    if (found === 'unknown') found = 'missing';
    caretaker.tend();
  });
  lease.onChange((held) => held && caretaker.tend());

  async function step(): Promise<void> {
    const wanted = value();
    if (wanted === null || found === 'unknown' || !lease.held()) return;
    if (found !== 'missing' && found.said === wanted) return;
    try {
      if (found === 'missing') {
        await api.create(collection, {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name, namespace, labels: { 'istio.io/config': 'true' } },
          data: { [key]: wanted },
        });
      } else {
        // A new root that was permitted is the one that agents trust from now on.
        const metadata = { resourceVersion: found.version, annotations: { [ALLOW_NEW_ROOT]: null } };
        await api.mergePatch(`${collection}/${name}`, { metadata, data: { [key]: wanted } });
      }
      log.info('control::ca', 'wrote a ConfigMap', { configmap: `${namespace}/${name}` });
    } catch (error) {
      // Somebody else has changed it: the watch tells how.
      if (!isConflict(error)) throw error;
    }
  }

  return {
    update: () => caretaker.tend(),
    close() {
      caretaker.close();
      reflector.close();
    },
  };
}

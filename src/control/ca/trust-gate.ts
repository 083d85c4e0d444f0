import { X509Certificate } from 'node:crypto';
import { splitCertificates } from '../../identity/pem.ts';
import type { KubeApi } from '../../kube/api.ts';
import { fields, labels, metadataOf, text } from '../../kube/object.ts';
import { startReflector } from '../../kube/reflector.ts';
import type { Logger } from '../../log/logger.ts';
import type { CaSource } from './ca-source.ts';
import { ALLOW_NEW_ROOT, TRUST_BUNDLE } from './kept-config-map.ts';

/** What a CA is held to when the control plane starts: what was published last is what agents trust. */
export interface TrustGate {
  /** Whether the CA has been found to be trusted; from then on the next ones are compared with it. */
  isOpen(): boolean;
  /** Whether a root may be made where there is none: not when agents trust one that is lost. */
  mayCreateRoot(): boolean;
  /** Called when what is published has changed, while it is not open. */
  onChange(listener: () => void): void;
  /** The same source, which has nothing until it is trusted; closing it ends the gate as well. For one source. */
  guard(source: CaSource): CaSource;
}

export interface TrustGateOptions {
  readonly api: Pick<KubeApi, 'get' | 'lines'>;
  /** Where the roots are published. */
  readonly namespace: string;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
}

/**
 * A replica that started with a root which agents do not trust would cut them off from each other, and would publish it as
 * the only one. Such a CA is left unused, and the replica is not ready, until it leads to a root that is published, or a
 * new one is permitted. Where no root is published there is nothing to break.
 */
export function openTrustGate({ api, namespace, log }: TrustGateOptions): TrustGate {
  const configmap = `${namespace}/${TRUST_BUNDLE.name}`;
  const listeners: (() => void)[] = [];
  let published: Published | null = null;
  let isOpen = false;
  let complaint = '';
  let look = () => {};
  const reflector = startReflector<Published>({
    api,
    path: `/api/v1/namespaces/${namespace}/configmaps`,
    query: { fieldSelector: `metadata.name=${TRUST_BUNDLE.name}` },
    key: (object) => text(metadataOf(object).name),
    read: readPublished,
    onChange: (_before, after) => changed(after ?? NOTHING),
    log,
  });
  void reflector.synced.then(() => published === null && changed(NOTHING));

  return {
    isOpen: () => isOpen,
    mayCreateRoot() {
      if (isOpen) return true;
      if (published === null) return false;
      if (published.isNewAllowed || published.roots.size === 0) return true;
      complain('the root of the mesh is lost, and no other is made: agents would not trust it', {
        remedy: `restore the Secret of the root, or the Secret cacerts and restart; or give up the old root: ${annotate()}`,
      });
      return false;
    },
    onChange: (listener) => void listeners.push(listener),
    guard(source) {
      const told: (() => void)[] = [];
      const tell = () => {
        for (const listener of told) listener();
      };
      look = () => {
        const material = source.material();
        if (isOpen || published === null || material === null) return;
        const { fingerprint256: fingerprint } = material.anchor;
        if (published.roots.size > 0 && !published.isNewAllowed && !published.roots.has(fingerprint)) {
          complain('CA_NOT_TRUSTED_YET: the CA leads to a root that agents do not trust, it is not used', {
            ...{ ca: source.where, fingerprint },
            remedy: `restore the CA of before (and restart, if it was another one); or give up the old root: ${annotate()}`,
          });
          return;
        }
        isOpen = true;
        reflector.close();
        tell();
      };
      source.onChange(() => (isOpen ? tell() : look()));
      look();
      return {
        where: source.where,
        material: () => (isOpen ? source.material() : null),
        revocationLists: () => (isOpen ? source.revocationLists() : null),
        onChange: (listener) => void told.push(listener),
        close() {
          reflector.close();
          source.close();
        },
      };
    },
  };

  function changed(now: Published): void {
    published = now;
    look();
    for (const listener of listeners) listener();
  }

  /** Once for each. */
  function complain(what: string, details: Readonly<Record<string, string>>): void {
    const next = `${what} ${Object.values(details).join(' ')}`;
    if (next === complaint) return;
    complaint = next;
    log.error('control::ca', what, { configmap, ...details });
  }

  function annotate(): string {
    return `kubectl annotate configmap -n ${namespace} ${TRUST_BUNDLE.name} ${ALLOW_NEW_ROOT}=now`;
  }
}

interface Published {
  /** SHA-256 fingerprints of those that have not ended: on one that has, nobody relies. */
  readonly roots: ReadonlySet<string>;
  readonly isNewAllowed: boolean;
}

const NOTHING: Published = { roots: new Set(), isNewAllowed: false };

function readPublished(object: unknown): Published {
  const roots = new Set<string>();
  for (const pem of splitCertificates(labels(fields(object).data)[TRUST_BUNDLE.key] ?? '')) {
    try {
      const { fingerprint256, validToDate } = new X509Certificate(pem);
      if (validToDate.getTime() > Date.now()) roots.add(fingerprint256);
    } catch {
      // Agents cannot trust what cannot be read.
    }
  }
  return { roots, isNewAllowed: Object.hasOwn(fields(metadataOf(object).annotations), ALLOW_NEW_ROOT) };
}

import type { X509Certificate } from 'node:crypto';
import type { KubeApi } from '../../kube/api.ts';
import type { Logger } from '../../log/logger.ts';
import type { Registry } from '../../metrics/registry.ts';
import { type Authenticate, createAuthentication, type TokenReviewer } from '../authentication.ts';
import type { GrpcService } from '../grpc/service.ts';
import type { Lease } from '../lease.ts';
import { createTokenReviewer } from '../token-review.ts';
import { openTokensFile } from '../tokens-file.ts';
import type { CaSource } from './ca-source.ts';
import { createCertificateAuthority } from './certificate-authority.ts';
import { createCertificateService } from './certificate-service.ts';
import { keepConfigMap, REVOCATION_LISTS, TRUST_BUNDLE } from './kept-config-map.ts';
import { reportMetrics } from './metrics.ts';
import { createNodeAuthorizer, type PodDirectory } from './node-authorizer.ts';
import { isPlugged, openPluggedCa } from './plugged-ca.ts';
import { revocationsOf } from './revocations.ts';
import { openRootSecret } from './root-secret.ts';
import { keepServingCertificate, type UseCertificate } from './serving-certificate.ts';
import { openTrustGate } from './trust-gate.ts';

export interface MeshCaConfig {
  readonly trustDomain: string;
  readonly clusterId: string;
  /** Accounts of agents, `namespace/service account`. */
  readonly trustedAccounts: readonly string[];
  readonly audience: string;
  /** A CA of the operator's; without Kubernetes also where a root is made. */
  readonly rootDir: string;
  readonly defaultTtlMs: number;
  readonly maxTtlMs: number;
  readonly rootLifeMs: number;
  /** 0 … 1, see `RotationPolicy`. */
  readonly rootGraceShare: number;
  /**
   * How long a new root is trusted before it signs, and an old one afterwards, in ms; certificates are valid for at most half
   * of it. Null for as long as the longest validity demands.
   */
  readonly rootOverlapMs?: number | null;
  /** DNS names and IP addresses that agents may call the control plane by. */
  readonly servingNames: readonly string[];
  /** See `openTokensFile`; without Kubernetes only. */
  readonly tokensFile: string | null;
}

/** What is there of Kubernetes. */
export interface KubernetesForCa {
  readonly api: KubeApi;
  /** For TokenReviews: with a timeout of a few seconds, because a caller waits. */
  readonly reviewApi: Pick<KubeApi, 'create'>;
  readonly lease: Lease;
  /** Where the Secret of the root is. */
  readonly namespace: string;
  readonly secret: string;
  /** Namespaces that get the roots as a ConfigMap. */
  readonly bundleNamespaces: readonly string[];
}

export interface MeshCaParts {
  /** Null without Kubernetes. */
  readonly kubernetes: KubernetesForCa | null;
  readonly pods: PodDirectory;
  readonly metrics: Pick<Registry, 'counter' | 'computed'>;
  readonly log: Logger;
  /** ms since 1970 */
  readonly now?: () => number;
}

/** The certificate authority of the mesh, with all that makes it one. */
export interface MeshCa {
  readonly authenticate: Authenticate;
  readonly service: GrpcService;
  /** All that are trusted, the one that signs first; none while there is no CA. */
  roots(): readonly X509Certificate[];
  /** Hands over the certificate of the control plane's port: the first as soon as there is a CA, and each new one. */
  serve(use: UseCertificate): void;
  close(): void;
}

/** @throws CulvertError of a CA folder that cannot be used, see `openPluggedCa` */
export async function openMeshCa(config: MeshCaConfig, parts: MeshCaParts): Promise<MeshCa> {
  const { trustDomain, clusterId, defaultTtlMs, maxTtlMs, rootOverlapMs = null, audience, tokensFile } = config;
  const { kubernetes, pods, metrics, log, now = Date.now } = parts;
  const source = await openSource(config, parts, now);
  const ca = createCertificateAuthority(source, now);
  reportMetrics(metrics, source);
  const closers: { close(): void }[] = [ca];

  let tokens: TokenReviewer;
  if (kubernetes !== null) {
    tokens = createTokenReviewer({ api: kubernetes.reviewApi, audience, now });
  } else if (tokensFile !== null) {
    const file = await openTokensFile(tokensFile, log);
    closers.push(file);
    tokens = file;
  } else {
    log.warn('control::ca', 'CULVERT_CONTROL_TOKENS_FILE is not set: no agent is let in by a token');
    tokens = { review: async () => ({ refused: 'no file of tokens is set, so no token is known' }) };
  }
  let isRevoked = revocationsOf(ca.revocationLists());
  ca.onChange(() => {
    isRevoked = revocationsOf(ca.revocationLists());
  });
  const authenticate = createAuthentication({
    tokens,
    roots: () => ca.roots(),
    isRevoked: (it) => isRevoked(it),
    trustDomain,
    clusterId,
    now,
  });
  const authorizer = createNodeAuthorizer({ pods, trustedAccounts: new Set(config.trustedAccounts), trustDomain });

  if (kubernetes !== null) {
    const { api, lease, bundleNamespaces } = kubernetes;
    const kept = bundleNamespaces.flatMap((namespace) => [
      keepConfigMap({ ...TRUST_BUNDLE, api, namespace, lease, log, value: () => ca.rootsPem() }),
      keepConfigMap({ ...REVOCATION_LISTS, api, namespace, lease, log, value: () => ca.revocationLists() }),
    ]);
    closers.push(...kept);
    ca.onChange(() => {
      for (const map of kept) map.update();
    });
  }

  return {
    authenticate,
    roots: () => ca.roots(),
    service: createCertificateService({
      ...{ ca, authenticate, authorizer, trustDomain, defaultTtlMs, maxTtlMs, metrics, log },
      longestMs: rootOverlapMs === null ? maxTtlMs : rootOverlapMs / 2,
    }),
    serve: (use) => void closers.push(keepServingCertificate({ ca, names: config.servingNames, log, now }, use)),
    close() {
      for (const closer of closers.reverse()) closer.close();
    },
  };
}

async function openSource(
  config: MeshCaConfig,
  { kubernetes, log }: MeshCaParts,
  now: () => number,
): Promise<CaSource> {
  const { rootDir: dir, trustDomain, rootLifeMs: lifeMs, rootGraceShare: graceShare, maxTtlMs, rootOverlapMs } = config;
  if (kubernetes === null) return await openPluggedCa({ dir, create: { trustDomain, lifeMs }, log, now });
  const { api, namespace, secret: name, lease } = kubernetes;
  const plugged = await isPlugged(dir);
  const gate = openTrustGate({ api, namespace, log });
  if (plugged) return gate.guard(await openPluggedCa({ dir, create: null, gate, log, now }));
  const policy = { trustDomain, lifeMs, graceShare, overlapMs: rootOverlapMs ?? maxTtlMs + HEARSAY_MS };
  return gate.guard(openRootSecret({ api, namespace, name, lease, policy, gate, log, now }));
}

/** How long a replica may sign on before it hears of a change: a watch that has died is noticed after three minutes. */
const HEARSAY_MS = 10 * 60_000;

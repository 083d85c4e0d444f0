/** Composition root of the control plane (`culvert control`): builds the parts, connects them, and ends them in order. */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { denyDumps } from '../../native/netns.ts';
import { serveAdmin } from '../admin/admin-server.ts';
import { serveMetrics } from '../admin/metrics-server.ts';
import { createReadiness, serveReadiness } from '../admin/readiness.ts';
import type { Environment } from '../config/config.ts';
import { messageOf } from '../errors.ts';
import { createKubeApi, type KubeApi } from '../kube/api.ts';
import { createLineWriter } from '../log/line-writer.ts';
import { createLogger, type Logger } from '../log/logger.ts';
import { expose } from '../metrics/exposition.ts';
import { ADMIN_REJECTS } from '../metrics/families.ts';
import { registerProcessMetrics } from '../metrics/process-metrics.ts';
import { createRegistry, type Registry } from '../metrics/registry.ts';
import { kernelHasIpv6 } from '../netns/kernel-ipv6.ts';
import { VERSION } from '../version.ts';
import { createAds } from './ads/ads.ts';
import { type MeshCa, openMeshCa } from './ca/mesh-ca.ts';
import { servingNames } from './ca/serving-certificate.ts';
import { type ControlConfig, loadControlConfig } from './config.ts';
import type { ObjectListener } from './kinds.ts';
import { alwaysHeld, type Lease, startLease } from './lease.ts';
import { createMesh, type Mesh } from './mesh/mesh.ts';
import { DEFAULT_MESH_SETTINGS } from './mesh/settings.ts';
import { CONTROL } from './metrics.ts';
import { createPodDirectory, type PodDirectoryBook } from './pod-directory.ts';
import { createRejections, type Rejections } from './rejections.ts';
import { type ControlServer, startControlServer } from './server.ts';
import { watchFolder } from './sources/folder.ts';
import { watchKubernetes } from './sources/kubernetes.ts';
import { statusRoute } from './status/report.ts';
import { startStatusWriter } from './status/status-writer.ts';

/**
 * Runs the control plane until it is told to stop (SIGTERM, SIGINT). Resolves with the exit code.
 * @throws CulvertError when it cannot start; the message says what to change
 */
export async function runControl(env: Environment): Promise<number> {
  const config = await loadControlConfig(env);
  const writer = createLineWriter();
  const log = createLogger({ format: config.logFormat, level: config.logFilter, write: writer.write });
  if (config.allowDumps) log.warn('app', 'core files and debuggers are permitted: they show the key of the root');
  else denyDumps();
  const stopped = Promise.withResolvers<string>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stopped.resolve(signal));
  const end: (() => Promise<void> | void)[] = [];
  try {
    // A stop during the start must not wait for an API server that does not answer; a failure of the start is one at once.
    const started = start(config, log, end);
    const failed = started.then(() => new Promise<never>(() => {}));
    const reason = await Promise.race([stopped.promise, failed]);
    log.info('app', 'shutting down', { reason });
    for (const step of end.reverse()) await step();
    log.info('app', 'shutdown complete');
    return 0;
  } finally {
    writer.close();
  }
}

/** Starts every part; what each needs at the end is pushed to `end`, to be done in reverse. */
async function start(config: ControlConfig, log: Logger, end: (() => Promise<void> | void)[]): Promise<void> {
  const replica = config.podName ?? hostname();
  const readiness = createReadiness();
  const objectsReady = readiness.wait('objects');
  const meshReady = readiness.wait('mesh state');
  const serverReady = readiness.wait('serving certificate');
  const anywhere = kernelHasIpv6() ? '::' : '0.0.0.0';
  const everywhere = (port: number) => [{ ip: anywhere, port }];
  const readinessServer = await serveReadiness({ readiness, addresses: everywhere(config.readinessPort), log });
  end.push(() => readinessServer.close());
  const registry = createRegistry();
  registerProcessMetrics(registry, '', 'control');
  const metrics = await serveMetrics({
    scrape: async () => expose(registry),
    addresses: everywhere(config.monitoringPort),
    log,
  });
  end.push(() => metrics.close());

  const mesh = createMesh(meshSettings(config), (name, error) =>
    log.error('control', 'an object cannot be worked out, its resources stay as they are', {
      object: name,
      error: messageOf(error),
    }),
  );
  const pods = createPodDirectory();
  const rejections = createRejections();
  const listener: ObjectListener = {
    changed(changes) {
      pods.apply(changes);
      rejections.apply(changes);
      mesh.apply(changes);
    },
    rejected(object) {
      if (!rejections.rejected(object)) return;
      const { kind, key, reason } = object;
      log.warn(
        'control',
        'object rejected: its last good version stays, a policy without one denies what it may select',
        { kind: kind.kind, object: key, reason },
      );
    },
  };
  const source = await openSource(config, { replica, mesh, listener, rejections, registry, log, end });
  reportMetrics(registry, {
    mesh,
    pods,
    rejections,
    lease: source.lease,
    isReady: () => readiness.pending().length === 0,
  });

  const ca = await openMeshCa(
    {
      trustDomain: config.trustDomain,
      clusterId: config.clusterId,
      trustedAccounts: config.trustedAccounts,
      audience: config.tokenAudience,
      rootDir: config.rootCaDir,
      defaultTtlMs: config.defaultCertificateTtl,
      maxTtlMs: config.maxCertificateTtl,
      rootLifeMs: config.rootTtl,
      rootGraceShare: config.rootGracePercent / 100,
      rootOverlapMs: config.rootOverlap,
      servingNames: servingNames(config.podNamespace, config.serviceName, config.furtherNames),
      tokensFile: config.tokensFile,
    },
    { kubernetes: source.kubernetes, pods, metrics: registry, log },
  );
  end.push(() => ca.close());
  let isSynced = false;
  const ads = createAds({
    ...{ resources: mesh.resources, authenticate: ca.authenticate, isSynced: () => isSynced, registry, log },
    trustedAccounts: new Set(config.trustedAccounts),
    limits: {
      debounceMs: config.debounceAfter,
      debounceMaxMs: config.debounceMax,
      ...(config.streamsPerSecond === 0 ? {} : { streamsPerSecond: config.streamsPerSecond }),
    },
  });
  end.push(() => ads.close());

  const admin = await serveAdmin({
    title: 'culvert control plane',
    port: config.adminPort,
    log,
    rejects: registry.counter(ADMIN_REJECTS),
    routes: [
      statusRoute({
        replica,
        readiness,
        lease: source.lease,
        resources: mesh.resources,
        clients: () => ads.clients(),
        rejections,
        problems: source.problems,
        roots: () => ca.roots(),
      }),
    ],
  });
  end.push(() => admin.close());

  await source.synced;
  objectsReady();
  await mesh.settled();
  // Nobody is served a part: what an agent is not told of any more, it takes for deleted.
  isSynced = true;
  meshReady();
  const server = await serve(config, anywhere, ca, [ads.service, ca.service], log);
  serverReady();
  end.push(async () => {
    readiness.wait('shutdown');
    // The other half is for the rest.
    await server.drain((config.terminationGracePeriod * 1000) / 2);
  });
  log.info('app', 'culvert control plane started', {
    version: VERSION,
    replica,
    port: server.port,
    metrics: metrics.addresses[0]!.port,
    readiness: readinessServer.addresses[0]!.port,
    admin: admin.addresses[0]!.port,
  });
}

/** Listens as soon as there is a certificate; each new one takes its place. */
async function serve(
  { port, maxConnectionAge }: ControlConfig,
  host: string,
  ca: MeshCa,
  services: Parameters<typeof startControlServer>[0]['services'],
  log: Logger,
): Promise<ControlServer> {
  const server = Promise.withResolvers<ControlServer>();
  let isStarted = false;
  ca.serve(async (certificate) => {
    if (isStarted) {
      (await server.promise).replaceCertificate(certificate);
      return;
    }
    isStarted = true;
    const limits = { maxAgeMs: maxConnectionAge };
    startControlServer({ host, port, certificate, services, limits, log }).then(server.resolve, server.reject);
  });
  return server.promise;
}

interface Source {
  readonly synced: Promise<void>;
  readonly lease: Lease;
  /** Why something is not read, of kinds or of files. */
  readonly problems: () => readonly string[];
  readonly kubernetes: Parameters<typeof openMeshCa>[1]['kubernetes'];
}

interface SourceParts {
  readonly replica: string;
  readonly mesh: Mesh;
  readonly listener: ObjectListener;
  readonly rejections: Rejections;
  readonly registry: Registry;
  readonly log: Logger;
  readonly end: (() => Promise<void> | void)[];
}

async function openSource(config: ControlConfig, parts: SourceParts): Promise<Source> {
  const { mesh, listener, registry, log, end } = parts;
  if (config.source.kind === 'kubernetes') return openKubernetes(config, config.source.host, parts);
  const folder = await watchFolder({ folder: config.source.folder, kinds: mesh.kinds, listener, log });
  end.push(() => folder.close());
  registry.computed(CONTROL.unusableFiles, () => [{ labels: [], value: folder.problems().length }]);
  return { synced: folder.synced, lease: alwaysHeld, problems: folder.problems, kubernetes: null };
}

function openKubernetes(config: ControlConfig, host: string, parts: SourceParts): Source {
  const { replica, mesh, listener, rejections, registry, log, end } = parts;
  const connect = (timeoutMs: number): KubeApi => {
    const { kubernetesPort: port, serviceAccountDir } = config;
    const api = createKubeApi({ host, port, serviceAccountDir, timeoutMs });
    end.push(() => api.close());
    return api;
  };
  const api = connect(30_000);
  const { podNamespace: namespace, caSecret: secret } = config;
  const lease = startLease({ api, namespace, name: LEASE, holder: `${replica}_${randomUUID()}`, log });
  end.push(() => lease.close());
  const watched = watchKubernetes({ api, kinds: mesh.kinds, listener, log });
  end.push(() => watched.close());
  registry.computed(CONTROL.watchFailures, () =>
    watched.failures().map(({ kind, failures }) => ({ labels: [kind.plural], value: failures })),
  );
  if (config.statusEnabled) {
    const { revision } = config;
    const written = startStatusWriter({ api, lease, statuses: mesh.statuses, rejections, revision, log });
    end.push(() => written.close());
  }
  const reviewApi = connect(REVIEW_TIMEOUT_MS);
  const kubernetes = { api, reviewApi, lease, namespace, secret, bundleNamespaces: [namespace] };
  return { synced: watched.synced, lease, problems: watched.problems, kubernetes };
}

function meshSettings(config: ControlConfig): Parameters<typeof createMesh>[0] {
  const { clusterId, trustDomain, rootNamespace, revision, ipv4Pool, ipv6Pool } = config;
  const { serviceEntriesSelectPods, servicesSelectWorkloadEntries, allocateAddresses, allowDryRun } = config;
  const { serviceEntryVisibility } = config;
  return {
    ...DEFAULT_MESH_SETTINGS,
    ...{ clusterId, trustDomain, rootNamespace, revision, ipv4Pool, ipv6Pool },
    ...{ serviceEntriesSelectPods, servicesSelectWorkloadEntries, allocateAddresses, allowDryRun },
    serviceEntryVisibility,
    namespacesHaveObjects: config.source.kind === 'kubernetes',
    domainSuffix: config.clusterDomain,
    systemNamespace: config.podNamespace,
  };
}

function reportMetrics(
  registry: Registry,
  parts: {
    readonly mesh: Mesh;
    readonly pods: PodDirectoryBook;
    readonly rejections: Rejections;
    readonly lease: Lease;
    readonly isReady: () => boolean;
  },
): void {
  const { mesh, pods, rejections, lease, isReady } = parts;
  registry.computed(CONTROL.pods, () => [{ labels: [], value: pods.size() }]);
  registry.computed(CONTROL.resources, () => {
    const { addresses, policies } = mesh.resources.counts();
    return [
      { labels: ['address'], value: addresses },
      { labels: ['authorization'], value: policies },
    ];
  });
  registry.computed(CONTROL.rejected, () => {
    const counts = new Map(mesh.kinds.map(({ kind }) => [kind, 0]));
    for (const { kind } of rejections.list()) counts.set(kind.kind, (counts.get(kind.kind) ?? 0) + 1);
    return [...counts].map(([kind, value]) => ({ labels: [kind], value }));
  });
  registry.computed(CONTROL.leader, () => [{ labels: [], value: lease.held() ? 1 : 0 }]);
  registry.computed(CONTROL.ready, () => [{ labels: [], value: isReady() ? 1 : 0 }]);
}

/** Name of the lease in the control plane's namespace. */
const LEASE = 'culvert-control';
/** A caller waits meanwhile. */
const REVIEW_TIMEOUT_MS = 5000;

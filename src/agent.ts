/** Composition root of the agent: builds the parts, connects them, and ends them in order (spec §16). */
import { revokedAmong } from '../native/crl.ts';
import { checkCapabilities, denyDumps, raiseNofileLimit } from '../native/netns.ts';
import { configDumpRoute, loggingRoute, quitRoute, xdsRoute } from './admin/admin-routes.ts';
import { serveAdmin } from './admin/admin-server.ts';
import { buildConfigDump, describeVersion } from './admin/config-dump.ts';
import { explainRoute } from './admin/explain-route.ts';
import { serveMetrics } from './admin/metrics-server.ts';
import { podStates } from './admin/pod-states.ts';
import { createReadiness, serveReadiness } from './admin/readiness.ts';
import { type Config, type Environment, loadConfig } from './config/config.ts';
import { dumpConfig } from './config/dump.ts';
import { CulvertError, messageOf } from './errors.ts';
import { collectAfterStart } from './garbage.ts';
import { dumpCertificates } from './identity/dump.ts';
import { makeKeyLog } from './identity/key-log.ts';
import { type CertificateManager, createCertificateManager } from './identity/manager.ts';
import { openAuthority } from './identity/open-authority.ts';
import { followRevocationLists } from './identity/revocation-lists.ts';
import { createLineWriter } from './log/line-writer.ts';
import { createLogger, type Logger } from './log/logger.ts';
import { ADMIN_REJECTS, LOG_LINES_LOST, WORKLOAD_MANAGER } from './metrics/families.ts';
import { createMetricsHub } from './metrics/hub.ts';
import { registerProcessMetrics } from './metrics/process-metrics.ts';
import { createRegistry, type Registry } from './metrics/registry.ts';
import { PolicyScopes } from './policy/scopes.ts';
import { dumpMesh } from './state/dump.ts';
import { loadLocal } from './state/local-file.ts';
import { createLocalLayer, type LocalLayer } from './state/local-layer.ts';
import type { MeshStore } from './state/mesh-state.ts';
import { readKeys } from './state/read-keys.ts';
import { createMeshState } from './state/store.ts';
import { watchLocalFile } from './state/watch-local-file.ts';
import { VERSION } from './version.ts';
import { lookUpHostname } from './worker/dns-lookup.ts';
import { Hostnames } from './worker/hostnames.ts';
import { createPlanner } from './worker/planner.ts';
import { PodDirector } from './worker/pod-director.ts';
import { podMeshState } from './worker/pod-mesh-state.ts';
import { PolicyReport } from './worker/policy-report.ts';
import { planeSettings } from './worker/settings.ts';
import { Supervisor } from './worker/supervisor.ts';
import type { XdsClient } from './xds/client.ts';
import { startZdsClient, type ZdsClient } from './zds/client.ts';
import { createZdsSession, type Readiness as ZdsReadiness } from './zds/session.ts';
import { realTimers } from './zds/types.ts';

/** When what the start alone needed is of no more use, in ms. */
const SETTLED_AFTER = 8000;
/** How often metrics are collected when nobody scrapes, in ms. */
const METRICS_REFRESH = 60_000;

/**
 * Runs the agent until it is told to stop (SIGTERM, SIGINT, /quitquitquit). Resolves with the exit code.
 * @throws CulvertError when it cannot start; the message says what to change
 */
export async function runAgent(env: Environment, argv: readonly string[]): Promise<number> {
  const config = await loadConfig(env, argv);
  const registry = createRegistry();
  const linesLost = registry.counter(LOG_LINES_LOST);
  linesLost.add(0, 'control');
  const writer = createLineWriter({ onLost: (lines) => linesLost.add(lines, 'control') });
  const log = createLogger({ format: config.logFormat, level: config.logFilter, write: writer.write });
  const stopped = Promise.withResolvers<string>();
  onSignals((signal) => stopped.resolve(signal));
  const end: (() => Promise<void> | void)[] = [];
  try {
    await start(config, registry, log, (reason) => stopped.resolve(reason), end);
    const reason = await stopped.promise;
    log.info('app', 'shutting down', { reason });
    for (const step of end.reverse()) await step();
    log.info('app', 'shutdown complete');
    return 0;
  } finally {
    writer.close();
  }
}

/** Starts every part; what each needs at the end is pushed to `end`, to be done in reverse. */
async function start(
  config: Config,
  registry: Registry,
  log: Logger,
  shutDown: (reason: string) => void,
  end: (() => Promise<void> | void)[],
): Promise<void> {
  raiseDescriptorLimit(log);
  requireSources(config);
  const readiness = createReadiness();
  const stateReady = readiness.wait('state manager');
  const proxyReady = readiness.wait('proxy');
  let podsReady = readiness.wait('workload proxy manager');
  const everywhere = [{ ip: config.ipv6Enabled ? '::' : '0.0.0.0', port: config.readinessPort }];
  const readinessServer = await serveReadiness({ readiness, addresses: everywhere, log });
  end.push(() => readinessServer.close());

  registerProcessMetrics(registry, config.metadata.ISTIO_VERSION ?? '');

  const mesh = createMeshState({ localNode: config.localNode ?? '' });
  let xds: XdsClient | null = null;
  const local = createLocalLayer(mesh, {
    hasAddress: (name) => xds?.hasAddress(name) ?? false,
    hasPolicy: (name) => xds?.hasPolicy(name) ?? false,
  });
  end.push(await followLocalConfig(config, local, log));
  xds = await startXds(config, mesh, local, registry, log);
  end.push(() => xds?.close());

  // Before there is a key in memory; what follows shows that the agent can still do its work.
  if (config.allowDumps) log.warn('app', 'core files and debuggers are permitted: they show the keys of every pod');
  else denyDumps();
  requireCapabilities(config.packetMark);
  const authority = await openAuthority(config, log, () => certificates.renewAll());
  let revocations: Uint8Array = new Uint8Array();
  const certificates: CertificateManager = createCertificateManager({
    authority,
    log,
    revoked: (all) =>
      revocations.length === 0
        ? all.map(() => false)
        : revokedAmong(
            revocations,
            all.map(({ chainPem, rootsPem }) => [chainPem, rootsPem] as const),
          ),
  });
  end.push(() => {
    certificates.close();
    authority.close();
  });
  const tlsKeylog = makeKeyLog(config, log);

  const started = registry.counter(WORKLOAD_MANAGER.started);
  const stopped = registry.counter(WORKLOAD_MANAGER.stopped);
  started.add(0);
  stopped.add(0);
  let director: PodDirector | null = null;
  const policies = new PolicyScopes({ mesh, onChange: () => director?.tellAll() });
  const hostnames = new Hostnames({
    lookup: (hostname) => lookUpHostname(hostname, config.ipv6Enabled),
    now: () => performance.now(),
    isUsed: (hostname) => supervisor.isRead(readKeys.resolvedName(hostname)),
    onChange: (hostname) =>
      supervisor.invalidate({ touched: new Set([readKeys.resolvedName(hostname)]), touchedBlocks: [] }),
  });
  end.push(() => hostnames.close());
  const supervisor: Supervisor = new Supervisor({
    threads: config.workerThreads,
    settings: planeSettings({ ...config, tlsKeylog }),
    revocations: config.crlPath === null ? null : new Uint8Array(),
    log,
    logFormat: config.logFormat,
    plan: createPlanner(mesh, config.network, (uid) => supervisor.podOf(uid), xds?.demand ?? null, hostnames),
    certificate: (identity) => certificates.get(identity),
    meshState: (pod) => podMeshState(mesh, policies, pod),
    onPods({ kind, pod }) {
      if (kind === 'started') {
        started.add(1);
        director?.podStarted(pod);
      } else {
        stopped.add(1);
        director?.podStopped(pod);
      }
    },
    onThreadGone: (name) => hub.forget(name),
  });
  const hub = createMetricsHub({
    registry,
    threads: () => supervisor.threads(),
    onError: (thread, error) => log.warn('metrics', 'a thread gave no metrics', { thread, error: messageOf(error) }),
  });
  if (config.crlPath !== null) {
    // Before the first connection.
    const followed = await followRevocationLists(config.crlPath, log, (lists) => {
      revocations = lists;
      supervisor.revoke(lists);
      void certificates.reviewRevocations();
    });
    end.push(() => followed.close());
  }
  await supervisor.launch();
  const podDirector = new PodDirector(
    mesh,
    supervisor,
    certificates,
    policies,
    new PolicyReport(policies, log, registry),
  );
  director = podDirector;
  certificates.watch((identity, certificate) => {
    if (certificate === null) supervisor.forget(identity);
    else supervisor.renew(identity, certificate);
  });
  end.push(async () => {
    // The mesh state is followed to the last: what it denies now must not go on until the deadline.
    await supervisor.drain(config.terminationDeadline);
    podDirector.close();
    policies.close();
  });

  const session = createZdsSession({
    pods: supervisor,
    timers: realTimers,
    log,
    onReadiness(state: ZdsReadiness) {
      log.info('zds', 'state of the pods changed', { state });
      podsReady();
      if (state !== 'ready') podsReady = readiness.wait('workload proxy manager');
    },
  });
  registry.computed(WORKLOAD_MANAGER.active, () => [{ labels: [], value: supervisor.running().size }]);
  registry.computed(WORKLOAD_MANAGER.pending, () => [{ labels: [], value: session.pending().length }]);

  const startupLevel = log.level();
  const admin = await serveAdmin({
    port: config.adminPort,
    log,
    rejects: registry.counter(ADMIN_REJECTS),
    routes: [
      configDumpRoute(async () =>
        buildConfigDump({
          mesh: dumpMesh(mesh),
          staticConfig: staticConfig(local),
          version: describeVersion({
            version: VERSION,
            gitRevision: 'unknown',
            buildProfile: 'release',
            buildStatus: 'Clean',
            istioVersion: config.metadata.ISTIO_VERSION ?? 'unknown',
          }),
          config: dumpConfig(config),
          certificates: dumpCertificates(certificates.list()),
          pods: await podStates(supervisor, session.pending()),
          policyRefusals: [...policies.refusals().values()],
          xds: xds?.status(),
        }),
      ),
      xdsRoute(() => xds?.status() ?? null),
      loggingRoute({
        startup: startupLevel,
        current: () => log.level(),
        set(filter) {
          log.setLevel(filter);
          return supervisor.setLogLevel(filter);
        },
      }),
      explainRoute({
        world: async () => ({
          mesh,
          network: config.network,
          localNode: config.localNode ?? '',
          pods: supervisor.pods(),
          failing: await supervisor.unhealthyEndpoints(),
        }),
        names: hostnames,
        connection: (thread, number) => supervisor.connection(thread, number),
      }),
      quitRoute(() => shutDown('/quitquitquit')),
    ],
  });
  end.push(() => admin.close());
  const metricsServer = await serveMetrics({
    scrape: () => hub.scrape(),
    addresses: [{ ip: config.ipv6Enabled ? '::' : '0.0.0.0', port: config.statsPort }],
    log,
  });
  end.push(() => metricsServer.close());
  const refresh = setInterval(() => void hub.refresh(), METRICS_REFRESH);
  refresh.unref();
  end.push(() => clearInterval(refresh));
  const settled = setTimeout(collectAfterStart, SETTLED_AFTER);
  settled.unref();
  end.push(() => clearTimeout(settled));

  let zds: ZdsClient | null = null;
  let stopping = false;
  // First of all at the end: no pod is added while connections finish.
  end.push(() => {
    stopping = true;
    zds?.close();
    session.close();
  });
  // Without mesh state no pod can be served, so the node agent is not told that this agent is there.
  void (xds?.synced ?? Promise.resolve()).then(() => {
    stateReady();
    if (stopping) return;
    zds = startZdsClient({ path: config.inpodUds, session, timers: realTimers, random: Math.random, log });
  });
  proxyReady();
  log.info('app', 'culvert agent started', {
    version: VERSION,
    workers: config.workerThreads,
    admin: config.adminPort,
    metrics: config.statsPort,
    readiness: config.readinessPort,
    zds: config.inpodUds,
  });
}

/** Certificates need a source. */
function requireSources(config: Config): void {
  if (config.caDir !== null || config.caAddress !== null) return;
  throw new CulvertError(
    'CONFIG_INVALID',
    'there is nowhere to get certificates from: set CA_ADDRESS to the address of the control plane, or CULVERT_CA_DIR to a folder for the embedded CA (it is created when it is empty)',
  );
}

/** Null when there is no control plane. */
async function startXds(
  config: Config,
  store: MeshStore,
  underlay: LocalLayer,
  registry: Registry,
  log: Logger,
): Promise<XdsClient | null> {
  if (config.xdsAddress === null) return null;
  const { startXds } = await import('./xds/start.ts');
  return startXds({ config, address: config.xdsAddress, store, underlay, registry, log });
}

/** What every pod will need is tried once, before the node agent is told that this agent is there (spec §1.8). */
function requireCapabilities(mark: number): void {
  try {
    checkCapabilities(mark);
  } catch (cause) {
    throw new CulvertError('CAPABILITIES_MISSING', messageOf(cause), { cause });
  }
}

async function followLocalConfig(config: Config, local: LocalLayer, log: Logger): Promise<() => void> {
  const { localConfig, xdsAddress } = config;
  if (localConfig === null) {
    if (xdsAddress === null) {
      log.warn('state', 'neither XDS_ADDRESS nor LOCAL_XDS_PATH: the mesh is empty, so every enrolled pod is refused');
    }
    return () => {};
  }
  if (localConfig.kind === 'inline') {
    local.apply(await loadLocal(localConfig.text, 'LOCAL_XDS'));
    return () => {};
  }
  const watch = await watchLocalFile(localConfig.path, local, {
    applied: (changed) => log.info('state', 'local file applied', { file: localConfig.path, changed }),
    rejected: (error) => log.error('state', 'local file rejected, the last good state stays', { error: error.message }),
  });
  return () => watch.close();
}

function raiseDescriptorLimit(log: Logger): void {
  log.info('app', 'raised the limit of open file descriptors', { limit: raiseNofileLimit() });
}

/** What the local file holds, whether or not the control plane overrides it. */
function staticConfig(local: LocalLayer) {
  const mesh = createMeshState({ localNode: '' });
  mesh.apply(local.content());
  const { workloads, policies, services } = dumpMesh(mesh);
  return { workloads, policies, services };
}

/** SIGTERM and SIGINT end the agent in order; a second SIGINT at once (spec §16.2). */
function onSignals(stop: (signal: string) => void): void {
  let interrupted = false;
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => {
    if (interrupted) process.exit(0);
    interrupted = true;
    stop('SIGINT');
  });
}

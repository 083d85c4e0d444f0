/** Composition root of the node agent (`culvert cni`): builds the parts, connects them, and ends them in order. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { raiseNofileLimit } from '../../native/netns.ts';
import { serveMetrics } from '../admin/metrics-server.ts';
import { createReadiness } from '../admin/readiness.ts';
import type { Environment } from '../config/config.ts';
import { CulvertError, messageOf } from '../errors.ts';
import { createKubeApi, isConflict, isNotFound, type KubeApi } from '../kube/api.ts';
import { metadataOf, text } from '../kube/object.ts';
import { type Reflector, startReflector } from '../kube/reflector.ts';
import { createLineWriter } from '../log/line-writer.ts';
import { createLogger, type Logger } from '../log/logger.ts';
import { expose } from '../metrics/exposition.ts';
import { registerProcessMetrics } from '../metrics/process-metrics.ts';
import { createRegistry, type Registry } from '../metrics/registry.ts';
import { type NetnsHandle, openNetnsHandle } from '../netns/handle.ts';
import { kernelHasIpv6 } from '../netns/kernel-ipv6.ts';
import { VERSION } from '../version.ts';
import { startZdsServer } from '../zds/server.ts';
import { loadNodeAgentConfig, type NodeAgentConfig } from './config.ts';
import { type Eligibility, eligibilityOf } from './enrolment/eligibility.ts';
import { podRulesOf } from './enrolment/overrides.ts';
import { selectsNamespace } from './enrolment/selectors.ts';
import { serveHealth } from './health.ts';
import { createHostRules } from './host/host-rules.ts';
import { findKubeletUser } from './host/kubelet-user.ts';
import { type ConfFile, INCUMBENT_TYPE, PLUGIN_TYPE, pluginTypes } from './install/conflist.ts';
import { readConfFiles, removeFile } from './install/files.ts';
import { startInstaller, uninstallPlugin } from './install/installer.ts';
import { type Ending, whyEnding } from './install/shutdown.ts';
import { type NamespaceObject, type PodObject, REDIRECTION, readNamespace, readPod } from './kube/objects.ts';
import { createProvisionalPods } from './kube/provisional-pods.ts';
import { NODE_AGENT } from './metrics.ts';
import { createPluginHandler } from './plugin/handler.ts';
import type { SandboxPod } from './plugin/request.ts';
import { startPluginServer } from './plugin/server.ts';
import { createStateFile, STATE_FILE } from './plugin/state-file.ts';
import { createDiscovery } from './pods/discovery-batch.ts';
import { createEnroller, type Desired } from './pods/enroller.ts';
import { chooseRulesBackend, type RulesBackend } from './rules/backend.ts';
import { defaultPodRules, type PodRules } from './rules/pod-rules.ts';

/**
 * Runs the node agent until it is told to stop (SIGTERM, SIGINT). Resolves with the exit code.
 * @throws CulvertError when it cannot start; the message says what to change
 */
export async function runNodeAgent(env: Environment): Promise<number> {
  const config = await loadNodeAgentConfig(env);
  const writer = createLineWriter();
  const log = createLogger({ format: config.logFormat, level: config.logFilter, write: writer.write });
  const stopped = Promise.withResolvers<string>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stopped.resolve(signal));
  const end: (() => Promise<void> | void)[] = [];
  try {
    // A stop during the start must not wait for an API server that does not answer.
    const started = start(config, log, stopped.promise, end);
    started.catch(() => {});
    await Promise.race([started, stopped.promise]);
    log.info('app', 'shutting down', { reason: await stopped.promise });
    for (const step of end.reverse()) await step();
    log.info('app', 'shutdown complete');
    return 0;
  } finally {
    writer.close();
  }
}

/** Starts every part; what each needs at the end is pushed to `end`, to be done in reverse. */
async function start(
  config: NodeAgentConfig,
  log: Logger,
  stopped: Promise<string>,
  end: (() => Promise<void> | void)[],
): Promise<void> {
  raiseNofileLimit();
  const readiness = createReadiness();
  const podsReady = readiness.wait('pods');
  const everywhere = (port: number) => [{ ip: kernelHasIpv6() ? '::' : '0.0.0.0', port }];
  const health = await serveHealth({ readiness, addresses: everywhere(config.healthPort), log });
  end.push(() => health.close());
  const registry = createRegistry();
  registerProcessMetrics(registry, '', 'cni');
  const metrics = await serveMetrics({
    scrape: async () => expose(registry),
    addresses: everywhere(config.monitoringPort),
    log,
  });
  end.push(() => metrics.close());
  for (const [server, { addresses }] of Object.entries({ health, metrics })) {
    log.info('app', 'listening', { server, port: addresses[0]!.port });
  }

  const api = createKubeApi({
    host: config.kubernetesHost,
    port: config.kubernetesPort,
    serviceAccountDir: config.serviceAccountDir,
  });
  end.push(() => api.close());
  let stopping = false;
  void stopped.then(() => {
    stopping = true;
  });
  let isComplete = false;
  end.push(async () => {
    if (!isComplete) await endIncomplete(config, api, log);
  });
  if (!(await isOnlyNodeAgent(config, log, stopped))) return;
  const backend = await chooseBackend(config);
  const hostNetns = config.switchToHostNetns ? openNetnsHandle(join(config.hostProc, '1/ns/net')) : null;
  end.push(() => hostNetns?.close());
  const kubeletUid = findKubeletUser(config.hostProc);
  if (kubeletUid === null) log.warn('host', 'no kubelet found among the processes: taking root for its user');
  const host = createHostRules({
    backend,
    netns: hostNetns?.fd ?? null,
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
    ipv6: config.ipv6 && kernelHasIpv6(),
    kubeletUid: kubeletUid ?? 0,
  });

  const snapshotBuilt = Promise.withResolvers<void>();
  const zds = startZdsServer({
    path: config.zdsPath,
    log,
    ready: snapshotBuilt.promise,
    onAgent: () => enroller.retry(),
  });
  end.push(() => zds.close());
  registry.computed(NODE_AGENT.agents, () => [{ labels: [], value: zds.agents() }]);

  const events = registry.counter(NODE_AGENT.events);
  const steps = registry.counter(NODE_AGENT.steps);
  const stepSeconds = registry.counter(NODE_AGENT.stepSeconds);
  const mesh = watchMesh(config, api, log, {
    onPod(uid, kind) {
      events.add(1, kind);
      enroller.changed(uid);
    },
    onNamespaces: () => updateState(),
  });
  end.push(() => mesh.close());
  registry.computed(NODE_AGENT.watchFailures, () => mesh.failures());
  const discover = createDiscovery(config.hostProc);
  const enroller = createEnroller({
    desired: (uid) => mesh.desired(uid),
    rules: backend,
    zds,
    host,
    discover,
    annotate: (pod, value) => annotate(api, pod, value),
    log,
    onStep(change, result, ms) {
      steps.add(1, change, result);
      stepSeconds.add(ms / 1000, change);
    },
  });
  registry.computed(NODE_AGENT.pods, () => countStates(enroller.states()));

  const writeState = createStateFile(config.stateDir);
  const updateState = () => {
    if (!config.installPlugin || !mesh.isSynced()) return;
    try {
      writeState({ enrolledNamespaces: mesh.enrolledNamespaces(), exempt: exemptPods(config) });
    } catch (error) {
      log.error('plugin', 'cannot tell the CNI plugin which namespaces are enrolled', { error: messageOf(error) });
    }
  };
  await mesh.synced;
  updateState();
  await resumePods({ config, mesh, enroller, discover, log });
  // Each pod tries again by itself.
  await host.sync().catch((error) => log.error('host', messageOf(error)));
  snapshotBuilt.resolve();
  // Nothing is installed any more on a node that may just have been left.
  if (stopping) return;
  isComplete = true;
  // What was heard of them before everything was known could not be judged.
  for (const { uid } of mesh.pods()) enroller.changed(uid);

  const pluginRequests = registry.counter(NODE_AGENT.pluginRequests);
  const pluginSeconds = registry.counter(NODE_AGENT.pluginSeconds);
  const plugin = startPluginServer({
    path: join(config.runDir, SOCKET_NAME),
    handle: createPluginHandler({ synced: mesh.isSynced, eligiblePod: mesh.eligiblePod, enroller, log }),
    log,
    onAnswer(command, answer, ms) {
      pluginRequests.add(1, answer.kind === 'ok' ? '200' : answer.kind === 'unavailable' ? '503' : '500');
      pluginSeconds.add(ms / 1000, command);
    },
  });
  const installer = config.installPlugin ? install(config, registry, log) : null;
  const installReady = readiness.wait('CNI plugin');
  const watchInstall = setInterval(() => noteInstall(), 1000);
  let waitsForInstall: (() => void) | null = installReady;
  const noteInstall = () => {
    const installed = installer?.isInstalled() ?? true;
    if (installed) {
      waitsForInstall?.();
      waitsForInstall = null;
    } else {
      waitsForInstall ??= readiness.wait('CNI plugin');
    }
  };
  noteInstall();

  end.push(async () => {
    clearInterval(watchInstall);
    installer?.close();
    if (await isUninstall(config, api, log)) {
      // The plugin first: it would hold up pods that nobody will enrol.
      try {
        installer?.uninstall();
      } catch (error) {
        log.error('install', messageOf(error));
      }
      plugin.close();
      const left = await enroller.leaveAll();
      if (left.length > 0) log.warn('pods', 'pods keep their rules: restart them', { pods: left.join(', ') });
      await host.close().catch((error) => log.warn('host', messageOf(error)));
      removeFile(join(config.stateDir, STATE_FILE));
    } else {
      plugin.close();
    }
    await enroller.close();
  });
  podsReady();
  log.info('app', 'culvert node agent started', {
    version: VERSION,
    node: config.nodeName,
    rules: backend.name,
    zds: config.zdsPath,
    plugin: join(config.runDir, SOCKET_NAME),
  });
}

/** Name of the plugin's socket in the run folder. */
const SOCKET_NAME = 'cni.sock';

/** Two who enrol the pods of one node would undo each other's work. Returns false when stopped before the other is gone. */
async function isOnlyNodeAgent(config: NodeAgentConfig, log: Logger, stopped: Promise<string>): Promise<boolean> {
  for (let found = incumbentConf(config); found !== null; found = incumbentConf(config)) {
    log.error('app', 'istio-cni enrols the pods of this node: uninstall it first; waiting until it is gone', {
      file: found,
    });
    const pause = new Promise<null>((resolve) => setTimeout(resolve, 5000, null).unref());
    if ((await Promise.race([stopped, pause])) !== null) return false;
  }
  return true;
}

function incumbentConf({ cniConfDir, installPlugin }: NodeAgentConfig): string | null {
  if (!installPlugin) return null;
  let files: ConfFile[];
  try {
    files = readConfFiles(cniConfDir);
  } catch {
    return null;
  }
  const found = files.find((file) => pluginTypes(file).includes(INCUMBENT_TYPE));
  return found === undefined ? null : join(cniConfDir, found.name);
}

function chooseBackend(config: NodeAgentConfig): Promise<RulesBackend> {
  if (config.forceIptables !== null) return chooseRulesBackend('iptables', [`iptables-${config.forceIptables}`]);
  return chooseRulesBackend(config.nativeNftables ? undefined : 'iptables');
}

function exemptPods(config: NodeAgentConfig) {
  return config.exemptPods.map((name) => ({ namespace: config.podNamespace, prefix: `${name}-` }));
}

function install(config: NodeAgentConfig, registry: Registry, log: Logger) {
  const installs = registry.counter(NODE_AGENT.installs);
  const installer = startInstaller({
    ...placeOf(config),
    plugin: fileURLToPath(new URL(PLUGIN_FILE, import.meta.url)),
    entry: {
      type: PLUGIN_TYPE,
      name: PLUGIN_TYPE,
      socket: join(config.runDir, SOCKET_NAME),
      state: join(config.stateDir, STATE_FILE),
    },
    log,
    onInstall: (result) => installs.add(1, result),
  });
  registry.computed(NODE_AGENT.installReady, () => [{ labels: [], value: installer.isInstalled() ? 1 : 0 }]);
  return installer;
}

function placeOf(config: NodeAgentConfig) {
  return {
    binDir: config.cniBinDir,
    confDir: config.cniConfDir,
    confName: config.cniConfName,
    chained: config.chained,
    groupRead: config.cniConfGroupRead,
    stateDir: config.stateDir,
  };
}

/** What the set-up builds in a checkout, or what lies beside the bundle. */
const PLUGIN_FILE = import.meta.url.endsWith('.ts') ? '../../native/cni-plugin/build/culvert-cni' : './culvert-cni';

/** Pods and namespaces of the node, and what follows from them. */
interface Mesh {
  readonly synced: Promise<unknown>;
  isSynced(): boolean;
  desired(uid: string): Desired;
  pods(): Iterable<PodObject>;
  enrolledNamespaces(): string[];
  eligiblePod(pod: SandboxPod): Promise<PodObject | null>;
  failures(): { labels: string[]; value: number }[];
  close(): void;
}

function watchMesh(
  config: NodeAgentConfig,
  api: KubeApi,
  log: Logger,
  events: { onPod(uid: string, kind: 'add' | 'update' | 'delete'): void; onNamespaces(): void },
): Mesh {
  const rules = { ...config, systemNamespaces: [config.systemNamespace, config.podNamespace] };
  const nodeRules: PodRules = {
    ...defaultPodRules,
    dnsCapture: config.dnsCapture,
    ipv6: config.ipv6,
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
  };
  const provisional = createProvisionalPods({ api, onChange: events.onPod });
  let isSynced = false;
  const namespaces: Reflector<NamespaceObject> = startReflector<NamespaceObject>({
    api,
    path: '/api/v1/namespaces',
    read: readNamespace,
    key: (object) => text(metadataOf(object).name),
    onChange(_before, after, name) {
      events.onNamespaces();
      // A pod of its own labels does not depend on its namespace, but looking is cheap.
      if (after !== null) for (const pod of pods.values()) if (pod.namespace === name) events.onPod(pod.uid, 'update');
    },
    log,
  });
  const pods: Reflector<PodObject> = startReflector<PodObject>({
    api,
    path: '/api/v1/pods',
    query: { fieldSelector: `spec.nodeName=${config.nodeName}` },
    read: readPod,
    key: (object) => text(metadataOf(object).uid),
    onChange(before, after, uid) {
      provisional.settle(uid);
      events.onPod(uid, after === null ? 'delete' : before === null ? 'add' : 'update');
    },
    log,
  });
  const synced = Promise.all([namespaces.synced, pods.synced]).then(() => {
    isSynced = true;
  });

  function eligibility(pod: PodObject, namespace = namespaces.get(pod.namespace)): Eligibility {
    return eligibilityOf(pod, namespace, rules);
  }

  function desired(uid: string): Desired {
    if (!isSynced) return { kind: 'unknown' };
    const pod = pods.get(uid) ?? provisional.get(uid);
    if (pod === null || pod.terminal) return { kind: 'gone' };
    const verdict = eligibility(pod);
    if (verdict === 'namespace-unknown') return { kind: 'unknown' };
    if (verdict !== 'selected') return { kind: 'out', pod };
    const complain = (annotation: string, value: string) =>
      log.warn('pods', 'annotation not understood', { pod: `${pod.namespace}/${pod.name}`, annotation, value });
    return { kind: 'enrolled', pod, rules: podRulesOf(pod, nodeRules, complain) };
  }

  /** The pod of a sandbox: by the watch, or else by asking, because the watch may lag behind the kubelet. */
  async function findPod({ namespace, name, uid }: SandboxPod): Promise<PodObject | null> {
    const known = uid === '' ? null : pods.get(uid);
    if (known !== null) return known;
    const pod = readPod(await api.get(`/api/v1/namespaces/${namespace}/pods/${name}`));
    // A static pod is known to the kubelet by another uid than to the API; its processes, too.
    if (pod === null || (uid !== '' && pod.uid !== uid && pod.staticUid !== uid)) {
      throw new CulvertError('POD_UNKNOWN', `the API server has no pod ${namespace}/${name} with uid ${uid}`);
    }
    return pod;
  }

  async function eligiblePod(sandbox: SandboxPod): Promise<PodObject | null> {
    if (config.excludeNamespaces.includes(sandbox.namespace)) return null;
    let pod: PodObject | null;
    try {
      pod = await findPod(sandbox);
    } catch (error) {
      // It was deleted while its sandbox was made: there is nothing to protect.
      if (isNotFound(error)) return null;
      throw error;
    }
    if (pod === null) return null;
    const namespace =
      namespaces.get(pod.namespace) ?? readNamespace(await api.get(`/api/v1/namespaces/${pod.namespace}`));
    if (eligibility(pod, namespace) !== 'selected') return null;
    if (pods.get(pod.uid) === null) provisional.expect(pod);
    return pod;
  }

  return {
    synced,
    isSynced: () => isSynced,
    desired,
    pods: () => pods.values(),
    enrolledNamespaces: () =>
      [...namespaces.values()].flatMap(({ name, labels }) =>
        !config.excludeNamespaces.includes(name) && selectsNamespace(config.selectors, labels) ? [name] : [],
      ),
    eligiblePod,
    failures: () => [
      { labels: ['namespaces'], value: namespaces.failures() },
      { labels: ['pods'], value: pods.failures() },
    ],
    close() {
      namespaces.close();
      pods.close();
      provisional.close();
    },
  };
}

/** Pods that were enrolled before this process started, with one search for all their namespaces. */
async function resumePods({
  config,
  mesh,
  enroller,
  discover,
  log,
}: {
  config: NodeAgentConfig;
  mesh: Mesh;
  enroller: ReturnType<typeof createEnroller>;
  discover: (pod: PodObject) => Promise<NetnsHandle | null>;
  log: Logger;
}): Promise<void> {
  const enrolled = [...mesh.pods()].filter((pod) => pod.annotations[REDIRECTION] === 'enabled' && !pod.terminal);
  const found = await Promise.all(enrolled.map((pod) => (pod.ips.length === 0 ? null : discover(pod))));
  for (const [index, pod] of enrolled.entries()) enroller.resume(pod, found[index] ?? null, !config.reconcileRules);
  const lost = found.filter((netns) => netns === null).length;
  log.info('pods', 'enrolled pods found', { pods: enrolled.length, without_namespace: lost });
}

async function annotate(
  api: KubeApi,
  pod: { namespace: string; name: string; uid: string },
  value: string | null,
): Promise<void> {
  try {
    await api.mergePatch(`/api/v1/namespaces/${pod.namespace}/pods/${pod.name}/status`, {
      // With the uid, a pod of the same name that has taken its place is not touched.
      metadata: { uid: pod.uid, annotations: { [REDIRECTION]: value } },
    });
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}

async function isUninstall(config: NodeAgentConfig, api: KubeApi, log: Logger): Promise<boolean> {
  const ending: Ending = config.disableSafeUpgrade
    ? { kind: 'uninstalled', reason: 'AMBIENT_DISABLE_SAFE_UPGRADE asks for it' }
    : await whyEnding(api, { namespace: config.podNamespace, daemonSet: config.daemonSet, node: config.nodeName });
  log.info('app', 'the node agent ends', { kind: ending.kind, reason: ending.reason });
  return ending.kind === 'uninstalled';
}

/** A node agent that never got to its pods still removes the plugin of an earlier one, which would hold up every pod. */
async function endIncomplete(config: NodeAgentConfig, api: KubeApi, log: Logger): Promise<void> {
  if (!config.installPlugin || !(await isUninstall(config, api, log))) return;
  try {
    uninstallPlugin({ ...placeOf(config), log });
    removeFile(join(config.stateDir, STATE_FILE));
  } catch (error) {
    log.error('install', messageOf(error));
  }
  log.warn('pods', 'pods that an earlier node agent has enrolled keep their rules: restart them');
}

function countStates(states: Iterable<{ readonly state: string }>) {
  const counts = new Map<string, number>();
  for (const { state } of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, value]) => ({ labels: [state], value }));
}

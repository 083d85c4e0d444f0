/** Composition root of the node agent (`culvert cni`): builds the parts, connects them, and ends them in order. */
import { join } from 'node:path';
import { raiseNofileLimit } from '../../native/netns.ts';
import { serveMetrics } from '../admin/metrics-server.ts';
import { createReadiness } from '../admin/readiness.ts';
import type { Environment } from '../config/config.ts';
import { messageOf } from '../errors.ts';
import { collectGarbage } from '../garbage.ts';
import { createKubeApi } from '../kube/api.ts';
import { createLineWriter } from '../log/line-writer.ts';
import { createLogger, type Logger } from '../log/logger.ts';
import { expose } from '../metrics/exposition.ts';
import { registerProcessMetrics } from '../metrics/process-metrics.ts';
import { createRegistry } from '../metrics/registry.ts';
import { type NetnsHandle, openNetnsHandle } from '../netns/handle.ts';
import { kernelHasIpv6 } from '../netns/kernel-ipv6.ts';
import { VERSION } from '../version.ts';
import { startZdsServer } from '../zds/server.ts';
import { loadNodeAgentConfig, type NodeAgentConfig } from './config.ts';
import { serveHealth } from './health.ts';
import { createHostRules } from './host/host-rules.ts';
import { findKubeletUser } from './host/kubelet-user.ts';
import { removeFile } from './install/files.ts';
import { endIncomplete, installPlugin, isOnlyNodeAgent, isUninstall, PLUGIN_SOCKET } from './install/node-plugin.ts';
import { annotate, type NodePods, watchNodePods } from './kube/node-pods.ts';
import { type PodObject, REDIRECTION } from './kube/objects.ts';
import { createAfterBurst } from './memory.ts';
import { NODE_AGENT } from './metrics.ts';
import { createPluginHandler } from './plugin/handler.ts';
import { startPluginServer } from './plugin/server.ts';
import { createStateFile, STATE_FILE } from './plugin/state-file.ts';
import { createDiscovery } from './pods/discovery-batch.ts';
import { createEnroller } from './pods/enroller.ts';
import { chooseRulesBackend, type RulesBackend } from './rules/backend.ts';

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
  const nodePods = watchNodePods(config, api, log, {
    onPod(uid, kind) {
      events.add(1, kind);
      enroller.changed(uid);
    },
    onNamespaces: () => updateState(),
  });
  end.push(() => nodePods.close());
  registry.computed(NODE_AGENT.watchFailures, () => nodePods.failures());
  const discover = createDiscovery(config.hostProc);
  const burst = createAfterBurst(() => collectGarbage('major'));
  end.push(() => burst.close());
  const enroller = createEnroller({
    desired: (uid) => nodePods.desired(uid),
    rules: backend,
    zds,
    host,
    discover,
    annotate: (pod, value) => annotate(api, pod, value),
    log,
    onStep(change, result, ms) {
      burst.note();
      steps.add(1, change, result);
      stepSeconds.add(ms / 1000, change);
    },
  });
  registry.computed(NODE_AGENT.pods, () => countStates(enroller.states()));

  const writeState = createStateFile(config.stateDir);
  const updateState = () => {
    if (!config.installPlugin || !nodePods.isSynced()) return;
    try {
      writeState({ enrolledNamespaces: nodePods.enrolledNamespaces(), exempt: exemptPods(config) });
    } catch (error) {
      log.error('plugin', 'cannot tell the CNI plugin which namespaces are enrolled', { error: messageOf(error) });
    }
  };
  await nodePods.synced;
  updateState();
  await resumePods({ config, nodePods, enroller, discover, log });
  // Each pod tries again by itself.
  await host.sync().catch((error) => log.error('host', messageOf(error)));
  snapshotBuilt.resolve();
  // Nothing is installed any more on a node that may just have been left.
  if (stopping) return;
  isComplete = true;
  // What was heard of them before everything was known could not be judged.
  for (const { uid } of nodePods.pods()) enroller.changed(uid);

  const pluginRequests = registry.counter(NODE_AGENT.pluginRequests);
  const pluginSeconds = registry.counter(NODE_AGENT.pluginSeconds);
  const plugin = startPluginServer({
    path: join(config.runDir, PLUGIN_SOCKET),
    handle: createPluginHandler({ synced: nodePods.isSynced, eligiblePod: nodePods.eligiblePod, enroller, log }),
    log,
    onAnswer(command, answer, ms) {
      pluginRequests.add(1, answer.kind === 'ok' ? '200' : answer.kind === 'unavailable' ? '503' : '500');
      pluginSeconds.add(ms / 1000, command);
    },
  });
  const installer = config.installPlugin ? installPlugin(config, registry, log) : null;
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
    plugin: join(config.runDir, PLUGIN_SOCKET),
  });
}

function chooseBackend(config: NodeAgentConfig): Promise<RulesBackend> {
  if (config.forceIptables !== null) return chooseRulesBackend('iptables', [`iptables-${config.forceIptables}`]);
  return chooseRulesBackend(config.nativeNftables ? undefined : 'iptables');
}

function exemptPods(config: NodeAgentConfig) {
  return config.exemptPods.map((name) => ({ namespace: config.podNamespace, prefix: `${name}-` }));
}

/** Pods that were enrolled before this process started, with one search for all their namespaces. */
async function resumePods({
  config,
  nodePods,
  enroller,
  discover,
  log,
}: {
  config: NodeAgentConfig;
  nodePods: NodePods;
  enroller: ReturnType<typeof createEnroller>;
  discover: (pod: PodObject) => Promise<NetnsHandle | null>;
  log: Logger;
}): Promise<void> {
  const enrolled = [...nodePods.pods()].filter((pod) => pod.annotations[REDIRECTION] === 'enabled' && !pod.terminal);
  const found = await Promise.all(enrolled.map((pod) => (pod.ips.length === 0 ? null : discover(pod))));
  for (const [index, pod] of enrolled.entries()) enroller.resume(pod, found[index] ?? null, !config.reconcileRules);
  const lost = found.filter((netns) => netns === null).length;
  log.info('pods', 'enrolled pods found', { pods: enrolled.length, without_namespace: lost });
}

function countStates(states: Iterable<{ readonly state: string }>) {
  const counts = new Map<string, number>();
  for (const { state } of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, value]) => ({ labels: [state], value }));
}

/** The plugin on the node of this process: when it is installed, and when it is removed. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../../errors.ts';
import type { KubeApi } from '../../kube/api.ts';
import type { Logger } from '../../log/logger.ts';
import type { Registry } from '../../metrics/registry.ts';
import type { NodeAgentConfig } from '../config.ts';
import { NODE_AGENT } from '../metrics.ts';
import { STATE_FILE } from '../plugin/state-file.ts';
import { type ConfFile, INCUMBENT_TYPE, PLUGIN_TYPE, pluginTypes } from './conflist.ts';
import { readConfFiles, removeFile } from './files.ts';
import { startInstaller, uninstallPlugin } from './installer.ts';
import { type Ending, whyEnding } from './shutdown.ts';

/** Name of the plugin's socket in the run folder. */
export const PLUGIN_SOCKET = 'cni.sock';

/** Two who enrol the pods of one node would undo each other's work. Returns false when stopped before the other is gone. */
export async function isOnlyNodeAgent(
  config: NodeAgentConfig,
  log: Logger,
  stopped: Promise<string>,
): Promise<boolean> {
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

/** Starts to keep the plugin in place. */
export function installPlugin(config: NodeAgentConfig, registry: Registry, log: Logger) {
  const installs = registry.counter(NODE_AGENT.installs);
  const installer = startInstaller({
    ...placeOf(config),
    plugin: fileURLToPath(new URL(PLUGIN_FILE, import.meta.url)),
    entry: {
      type: PLUGIN_TYPE,
      name: PLUGIN_TYPE,
      socket: join(config.runDir, PLUGIN_SOCKET),
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
const PLUGIN_FILE = import.meta.url.endsWith('.ts') ? '../../../native/cni-plugin/build/culvert-cni' : './culvert-cni';

/** Whether this node is to go on without a node agent. */
export async function isUninstall(config: NodeAgentConfig, api: KubeApi, log: Logger): Promise<boolean> {
  const ending: Ending = config.disableSafeUpgrade
    ? { kind: 'uninstalled', reason: 'AMBIENT_DISABLE_SAFE_UPGRADE asks for it' }
    : await whyEnding(api, { namespace: config.podNamespace, daemonSet: config.daemonSet, node: config.nodeName });
  log.info('app', 'the node agent ends', { kind: ending.kind, reason: ending.reason });
  return ending.kind === 'uninstalled';
}

/** A node agent that never got to its pods still removes the plugin of an earlier one, which would hold up every pod. */
export async function endIncomplete(config: NodeAgentConfig, api: KubeApi, log: Logger): Promise<void> {
  if (!config.installPlugin || !(await isUninstall(config, api, log))) return;
  try {
    uninstallPlugin({ ...placeOf(config), log });
    removeFile(join(config.stateDir, STATE_FILE));
  } catch (error) {
    log.error('install', messageOf(error));
  }
  log.warn('pods', 'pods that an earlier node agent has enrolled keep their rules: restart them');
}

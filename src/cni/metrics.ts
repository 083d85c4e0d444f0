/** Metrics of the node agent: the incumbent's names where it has them (spec node-07 §7.2), `culvert_cni_…` its own. */
import type { Family } from '../metrics/family.ts';

export const NODE_AGENT = {
  agents: gauge('ztunnel_connected', 'Number of agents that are connected (unstable).'),
  events: counter('nodeagent_reconcile_events', 'Changes of pods that were looked at (unstable).', ['type']),
  pluginRequests: counter('istio_cni_plugin_requests', 'Calls of the CNI plugin by their result (unstable).', [
    'response_code',
  ]),
  installs: counter('istio_cni_installs', 'Attempts to install the CNI plugin (unstable).', ['result']),
  installReady: gauge('istio_cni_install_ready', 'Whether the CNI plugin is installed (unstable).'),
  pods: gauge('culvert_cni_pods', 'Pods by their state of enrolment (unstable).', ['state']),
  steps: counter('culvert_cni_pod_changes', 'Pods taken into the mesh and out of it (unstable).', ['change', 'result']),
  stepSeconds: counter(
    'culvert_cni_pod_change_seconds',
    'Time spent on taking pods into the mesh and out of it (unstable).',
    ['change'],
    'seconds',
  ),
  pluginSeconds: counter(
    'culvert_cni_plugin_seconds',
    'Time in which calls of the CNI plugin were answered (unstable).',
    ['command'],
    'seconds',
  ),
  watchFailures: counter('culvert_cni_watch_failures', 'Lists and watches of the API server that failed (unstable).', [
    'resource',
  ]),
} as const;

function counter(name: string, help: string, labels: readonly string[] = [], unit?: string): Family {
  return { name, type: 'counter', help, labels, ...(unit === undefined ? {} : { unit }) };
}

function gauge(name: string, help: string, labels: readonly string[] = []): Family {
  return { ...counter(name, help, labels), type: 'gauge' };
}

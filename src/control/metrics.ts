/** Metrics of the control plane that belong to no other part of it: `culvert_control_…`. */
import type { Family } from '../metrics/family.ts';

export const CONTROL = {
  pods: gauge('culvert_control_pods', 'Pods that are known (unstable).'),
  resources: gauge('culvert_control_resources', 'Resources that agents are served (unstable).', ['type']),
  rejected: gauge(
    'culvert_control_rejected_objects',
    'Objects that cannot be read; their last good version is in force (unstable).',
    ['kind'],
  ),
  unusableFiles: gauge('culvert_control_file_problems', 'Problems with files of the folder of objects (unstable).'),
  watchFailures: {
    name: 'culvert_control_watch_failures',
    type: 'counter',
    help: 'Lists and watches of the API server that failed (unstable).',
    labels: ['resource'],
  },
  leader: gauge('culvert_control_leader', '1 while this replica is the one that writes (unstable).'),
  ready: gauge('culvert_control_ready', '1 while agents are served (unstable).'),
} as const satisfies Record<string, Family>;

function gauge(name: string, help: string, labels: readonly string[] = []): Family {
  return { name, type: 'gauge', help, labels };
}

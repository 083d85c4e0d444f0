import type { Filter } from './chain.ts';
import type { ProxiedConnection } from './connection.ts';
import { CONTINUE, close } from './verdict.ts';

/**
 * Bounds what one pod can take of the agent. `maxConnections` counts the live connections of a pod in this thread;
 * 0 is no limit.
 */
export function limits(maxConnections: number): Filter<ProxiedConnection> {
  return {
    name: 'limits',
    check({ home }) {
      if (maxConnections === 0 || home.connections.size <= maxConnections) return CONTINUE;
      return close(
        'too-many-connections',
        `the pod has ${maxConnections} connections in this thread, the limit of CULVERT_MAX_CONNECTIONS_PER_POD`,
      );
    },
  };
}

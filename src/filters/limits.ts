import type { Filter } from './chain.ts';
import type { ProxiedConnection } from './connection.ts';
import { CONTINUE, close } from './verdict.ts';

/** Bounds what one pod can take of the agent: `maxConnections` in each direction, over all threads; 0 is no limit. */
export function limits(maxConnections: number): Filter<ProxiedConnection> {
  return {
    name: 'limits',
    check({ home, direction }) {
      if (maxConnections === 0 || home.connections.total(direction) <= maxConnections) return CONTINUE;
      return close(
        'too-many-connections',
        `the pod has ${maxConnections} ${direction} connections, the limit of CULVERT_MAX_CONNECTIONS_PER_POD`,
      );
    },
  };
}

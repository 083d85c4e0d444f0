import type { Accepted } from '../../native/channel.ts';
import { FilterChain } from '../filters/chain.ts';
import { limits } from '../filters/limits.ts';
import { callsOwnListener, loopGuard } from '../filters/loop-guard.ts';
import { accessLog, stats } from '../filters/observers.ts';
import { originalDestination } from '../filters/original-destination.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { OutboundConnection } from './outbound-connection.ts';
import { route } from './route.ts';

/** The outbound listener of a thread: what it does with a connection that a pod's application made. */
export interface OutboundListener {
  readonly filters: readonly string[];
  accept(pod: Pod, accepted: Accepted): void;
}

export function createOutboundListener(plane: Plane): OutboundListener {
  const chain = new FilterChain<OutboundConnection>(
    'outbound',
    [
      originalDestination(),
      loopGuard(callsOwnListener),
      limits(plane.settings.maxConnectionsPerPod),
      route(),
      accessLog(plane.log),
      stats(),
    ],
    plane.metrics,
  );
  return {
    filters: chain.names,
    accept: (pod, accepted) => new OutboundConnection(plane, pod, accepted, chain).proceed(),
  };
}

import type { Accepted } from '../../native/channel.ts';
import { type Filter, FilterChain } from '../filters/chain.ts';
import { limits } from '../filters/limits.ts';
import { isIllegalPort, loopGuard } from '../filters/loop-guard.ts';
import { accessLog, stats } from '../filters/observers.ts';
import { originalDestination } from '../filters/original-destination.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { policy } from '../filters/policy.ts';
import type { PolicyObserver } from '../policy/evaluate.ts';
import { contextOf } from './context.ts';
import { connect, planVerdict } from './filters.ts';
import { PlaintextConnection } from './plaintext-connection.ts';

/** The plain inbound listener of a thread. */
export interface PlaintextListener {
  readonly filters: readonly string[];
  accept(pod: Pod, accepted: Accepted): void;
}

export function createPlaintextListener(plane: Plane, observe: PolicyObserver | null): PlaintextListener {
  const chain = new FilterChain<PlaintextConnection>(
    'inbound-plaintext',
    [
      originalDestination(),
      loopGuard(({ destinationPort }) => isIllegalPort(destinationPort)),
      limits(plane.settings.maxConnectionsPerPod),
      workload(),
      policy(observe),
      connect(),
      accessLog(plane.log),
      stats(),
    ],
    plane.metrics,
  );
  return {
    filters: chain.names,
    accept: (pod, accepted) => new PlaintextConnection(plane, pod, accepted, chain).proceed(),
  };
}

/** Who talks to whom, from the mesh state. */
function workload(): Filter<PlaintextConnection> {
  return {
    name: 'workload',
    check(connection) {
      const { plane, pod, peerIp, target } = connection;
      connection.plan ??= plane.plans.inbound(
        pod,
        { kind: 'plaintext', peerIp, originalDestination: target },
        (plan) => {
          connection.plan = plan;
          connection.proceed();
        },
      );
      const { plan } = connection;
      if (plan?.kind === 'deliver') {
        connection.context = contextOf(plan, connection, null);
      }
      return planVerdict(plan);
    },
  };
}

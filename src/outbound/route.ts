import type { Filter } from '../filters/chain.ts';
import { CONTINUE, close, PENDING } from '../filters/verdict.ts';
import { ON_DEMAND_DNS } from '../metrics/families.ts';
import type { ThreadMetrics } from '../metrics/thread-metrics.ts';
import { endpointsOf } from '../routing/endpoint-set.ts';
import type { WorkloadLabels } from '../routing/plan.ts';
import { sharedContext } from './context.ts';
import type { OutboundConnection } from './outbound-connection.ts';

/** Asks for the plan and picks an endpoint of it (spec §3.2). */
export function route(): Filter<OutboundConnection> {
  return {
    name: 'route',
    check(connection) {
      const { plane, pod, destinationIp, destinationPort } = connection;
      connection.plan ??= plane.plans.outbound(
        pod,
        { ip: destinationIp, port: destinationPort },
        connection.peerIp,
        (plan) => {
          connection.plan = plan;
          connection.proceed();
        },
      );
      const { plan } = connection;
      if (plan === null) return PENDING;
      if (plan.kind === 'reject') return close(plan.reason.tag, plan.reason.message);
      // A plan has at least one endpoint, and none has been tried.
      const endpoint = pod.balancer.pick(endpointsOf(plan), null)!;
      connection.use(plan, endpoint);
      if (endpoint.hostname !== '') countName(plane.metrics, plan.source, endpoint.hostname);
      // Who is beyond a network gateway tells the far end's answer.
      if (endpoint.inner === null) connection.context = sharedContext(plan, endpoint);
      return CONTINUE;
    },
  };
}

function countName(metrics: ThreadMetrics, source: WorkloadLabels, hostname: string): void {
  const known = (text: string) => (text === '' ? 'unknown' : text);
  const slot = metrics.slot(
    ON_DEMAND_DNS,
    known(source.workloadName),
    known(source.canonicalName),
    known(source.canonicalRevision),
    known(source.namespace),
    known(source.identity),
    known(source.canonicalName),
    known(source.canonicalRevision),
    known(source.clusterId),
    hostname,
  );
  metrics.add(slot, 1);
}

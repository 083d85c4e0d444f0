import type { Filter } from '../filters/chain.ts';
import type { ConnectionContext } from '../filters/connection.ts';
import { CONTINUE, close, PENDING } from '../filters/verdict.ts';
import { formatSocketAddress } from '../netns/address.ts';
import { endpointsOf } from '../routing/endpoint-set.ts';
import type { OutboundPlan, PlannedEndpoint } from '../routing/plan.ts';
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
      const endpoints = endpointsOf(plan);
      const endpoint = endpoints.at(endpoints.indexAt(plane.random()));
      connection.endpoint = endpoint;
      connection.context = sharedContext(plan, endpoint);
      return CONTINUE;
    },
  };
}

/** One for all connections of a plan to an endpoint: held connections are many. */
const contexts = new WeakMap<PlannedEndpoint, ConnectionContext>();

function sharedContext(plan: Extract<OutboundPlan, { kind: 'forward' }>, endpoint: PlannedEndpoint): ConnectionContext {
  let context = contexts.get(endpoint);
  if (context === undefined) {
    context = contextOf(plan, endpoint);
    contexts.set(endpoint, context);
  }
  return context;
}

function contextOf(plan: Extract<OutboundPlan, { kind: 'forward' }>, endpoint: PlannedEndpoint): ConnectionContext {
  const isTunnel = endpoint.protocol !== 'tcp';
  return {
    source: plan.source,
    destination: endpoint.destination,
    service: plan.service,
    sourceIdentity: isTunnel ? plan.source.identity : '',
    destinationIdentity: isTunnel ? (endpoint.destination?.identity ?? '') : '',
    destinationAddress: formatSocketAddress(endpoint.address),
    hboneAddress: endpoint.authority,
    mutualTls: isTunnel,
    sourceApp: null,
  };
}

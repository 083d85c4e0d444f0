import type { ConnectionContext } from '../filters/connection.ts';
import { type Baggage, UNKNOWN_BAGGAGE } from '../hbone/baggage.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { OutboundPlan, PlannedEndpoint } from '../routing/plan.ts';

type ForwardPlan = Extract<OutboundPlan, { kind: 'forward' }>;

/** Who is at the far end of a tunnel through a network gateway, in its own words and by its certificate. */
export interface FarEnd {
  /** SPIFFE id that was proved. */
  readonly identity: string;
  /** null when it said nothing. */
  readonly baggage: Baggage | null;
}

/** What log and metrics say of a connection to an endpoint (spec §3.6 for a far end). */
export function contextOf(
  plan: ForwardPlan,
  endpoint: PlannedEndpoint,
  farEnd: FarEnd | null = null,
): ConnectionContext {
  const isTunnel = endpoint.protocol === 'hbone';
  const destination =
    farEnd === null
      ? endpoint.destination
      : { uid: '', name: '', ...(farEnd.baggage ?? UNKNOWN_BAGGAGE), identity: farEnd.identity };
  const { source, service } = plan;
  const sourceIdentity = isTunnel ? source.identity : '';
  return {
    source,
    destination,
    service,
    sourceIdentity,
    destinationIdentity: isTunnel ? (destination?.identity ?? '') : '',
    destinationAddress: formatSocketAddress(endpoint.address),
    hboneAddress: endpoint.authority,
    labels: {
      reporter: 'source',
      source,
      destination,
      service,
      sourcePrincipal: sourceIdentity,
      mutualTls: isTunnel,
      sourceApp: null,
      isShared: farEnd === null,
    },
  };
}

/** One for all connections of a plan to an endpoint: held connections are many. */
const contexts = new WeakMap<PlannedEndpoint, ConnectionContext>();

export function sharedContext(plan: ForwardPlan, endpoint: PlannedEndpoint): ConnectionContext {
  let context = contexts.get(endpoint);
  if (context === undefined) {
    context = contextOf(plan, endpoint);
    contexts.set(endpoint, context);
  }
  return context;
}

import type { ConnectionContext } from '../filters/connection.ts';
import { formatSocketAddress, type SocketAddress } from '../netns/address.ts';
import type { PolicyConnection } from '../policy/types.ts';
import type { InboundPlan, WorkloadLabels } from '../routing/plan.ts';

export type DeliverPlan = Extract<InboundPlan, { kind: 'deliver' }>;

/** Where a connection came in, and what mTLS has proved; '' for plain text. */
export interface InboundEnds {
  readonly destinationIp: string;
  readonly destinationPort: number;
  readonly peerIdentity: string;
  /** Of the CONNECT request. */
  readonly authority: string;
}

/** The last connection of each plan and its context, for the next ones: they are alike, and held connections are many. */
const contexts = new WeakMap<DeliverPlan, { readonly ends: InboundEnds; readonly context: ConnectionContext }>();

/** What log and metrics say of a connection to a pod. `told`: what its source says of itself, when nobody else knows it. */
export function contextOf(plan: DeliverPlan, ends: InboundEnds, told: WorkloadLabels | null): ConnectionContext {
  if (told !== null) return newContext(plan, ends, told);
  const last = contexts.get(plan);
  if (last !== undefined && isAlike(last.ends, ends)) return last.context;
  const { destinationIp, destinationPort, peerIdentity, authority } = ends;
  const context = newContext(plan, ends, null);
  contexts.set(plan, { ends: { destinationIp, destinationPort, peerIdentity, authority }, context });
  return context;
}

function isAlike(a: InboundEnds, b: InboundEnds): boolean {
  return (
    a.destinationIp === b.destinationIp &&
    a.destinationPort === b.destinationPort &&
    a.peerIdentity === b.peerIdentity &&
    a.authority === b.authority
  );
}

function newContext(plan: DeliverPlan, ends: InboundEnds, told: WorkloadLabels | null): ConnectionContext {
  const isTunnel = ends.authority !== '';
  const source = plan.source ?? told;
  const { destination, service } = plan;
  return {
    source,
    destination,
    service,
    sourceIdentity: ends.peerIdentity,
    destinationIdentity: isTunnel ? destination.identity : '',
    destinationAddress: formatSocketAddress({ ip: ends.destinationIp, port: ends.destinationPort }),
    hboneAddress: ends.authority,
    labels: {
      reporter: 'destination',
      source,
      destination,
      service,
      sourcePrincipal: ends.peerIdentity,
      mutualTls: isTunnel,
      // The incumbent takes the application's name from the workload then (spec §12.2).
      sourceApp: told?.workloadName ?? null,
      isShared: told === null,
    },
  };
}

const judged = new WeakMap<DeliverPlan, PolicyConnection>();

/** A connection as policies see it: the same object for connections that are alike, so that it is taken apart once. */
export function policyFactsOf(
  plan: DeliverPlan,
  sourceIp: string,
  sourceIdentity: string | null,
  { ip, port }: SocketAddress,
): PolicyConnection {
  const last = judged.get(plan);
  if (
    last !== undefined &&
    last.sourceIp === sourceIp &&
    last.sourceIdentity === sourceIdentity &&
    last.destinationIp === ip &&
    last.destinationPort === port
  ) {
    return last;
  }
  const connection = { sourceIp, sourceIdentity, destinationIp: ip, destinationPort: port };
  judged.set(plan, connection);
  return connection;
}

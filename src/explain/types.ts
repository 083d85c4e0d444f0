/** What `/explain` answers: plain data, printed as JSON or as text (print.ts). */
import type { ConnectionDump } from '../filters/connection.ts';
import type { PolicyExplanation } from '../policy/explain.ts';
import type { OutboundRejection, ServiceLabels } from '../routing/plan.ts';

export interface Explanation {
  /** One sentence: what happens to a connection, and why. */
  readonly summary: string;
  readonly outcome: 'allowed' | 'denied' | 'depends-on-endpoint' | 'refused' | 'not-judged';
  readonly from: ExplainedWorkload;
  readonly to: { readonly asked: string; readonly address: string };
  readonly route: ExplainedRoute;
  /** What limits how far the answer can be trusted. */
  readonly notes: readonly string[];
}

export interface ExplainedWorkload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly node: string;
  readonly network: string;
  readonly addresses: readonly string[];
  readonly identity: string;
  /** Whether an agent carries its connections; null when that is not known here: it runs on another node. */
  readonly enrolled: boolean | null;
}

export type ExplainedRoute =
  | { readonly kind: 'refused'; readonly reason: OutboundRejection }
  | {
      /**
       * tunnel: HBONE to the destination or its waypoint; double-tunnel: HBONE through a network gateway;
       * plain: TCP to a workload; passthrough: TCP to an address that the mesh does not know
       */
      readonly kind: 'tunnel' | 'double-tunnel' | 'plain' | 'passthrough' | 'mixed';
      readonly service: ServiceLabels | null;
      /** The waypoints on the way, as the mesh state names them; empty without. */
      readonly waypoints: readonly string[];
      /** null without waypoints */
      readonly behindWaypoint: BehindWaypoint | null;
      readonly endpointCount: number;
      /** The first ones, if there are many. */
      readonly endpoints: readonly ExplainedEndpoint[];
    };

/** What one of the waypoints would meet, should its own rules, which are not known here, let the connection through. */
export interface BehindWaypoint {
  readonly namespace: string;
  readonly name: string;
  /** SPIFFE id under which it goes on, and which policies behind it see. */
  readonly identity: string;
  /** The first ones; none when it could not go on. */
  readonly endpoints: readonly (Pick<ExplainedEndpoint, 'namespace' | 'name' | 'address'> & {
    readonly policy: Judgement;
  })[];
}

export interface ExplainedEndpoint {
  /** '' for an address that the mesh does not know */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  /** What is connected to. */
  readonly address: string;
  /** The name that DNS gave the address for; '' when the mesh state says it. */
  readonly hostname: string;
  /** Part of new connections that go here by weight, 0..1; 0 for those that take over when no nearer one can be reached. */
  readonly share: number;
  /** As the control plane has it. */
  readonly health: 'healthy' | 'unhealthy' | 'not known';
  /** What connections of this pod have met there lately, by worker; empty when all went well. */
  readonly failing: readonly { readonly worker: number; readonly failures: number; readonly ejectedForMs: number }[];
  readonly protocol: 'hbone' | 'double-hbone' | 'tcp';
  /** Of the CONNECT request; null for tcp */
  readonly authority: string | null;
  /** SPIFFE ids of which the peer must present one. */
  readonly expectedIdentities: readonly string[];
  /** The same of the far end of a tunnel inside the tunnel; null without one. */
  readonly innerIdentities: readonly string[] | null;
  readonly policy: Judgement;
}

export type Judgement =
  /** Nobody judges it, or somebody whose rules are not known here; or it was not looked at because there are many. */
  | { readonly kind: 'not-judged'; readonly reason: string }
  /** The agent of the destination does not serve what is asked for. */
  | { readonly kind: 'refused'; readonly reason: string }
  | ({ readonly kind: 'judged'; readonly as: JudgedAs } & PolicyExplanation);

/** The connection as policies see it. */
export interface JudgedAs {
  /** SPIFFE id; null in plain text */
  readonly identity: string | null;
  readonly source: string;
  readonly destination: string;
}

/** A live connection. */
export interface ExplainedConnection {
  readonly connection: ConnectionDump & { readonly id: string; readonly pod: string };
  readonly ageMs: number;
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
  /** SPIFFE ids of which the peer had to present one; empty for inbound and for plain ones. */
  readonly expectedIdentities: readonly string[];
  /** What policies say of it now; null for outbound ones, which nobody judges on this side. */
  readonly policy: Judgement | null;
  /** What a new one would meet; null when its source is no workload of the mesh. */
  readonly now: Explanation | null;
}

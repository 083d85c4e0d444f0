import type { ChannelLoop } from '../../native/channel.ts';
import type { Deadlines } from '../deadlines.ts';
import type { CulvertError } from '../errors.ts';
import type { Http2Options } from '../hbone/connection.ts';
import type { TunnelPool } from '../hbone/pool.ts';
import type { Logger } from '../log/logger.ts';
import type { ThreadMetrics } from '../metrics/thread-metrics.ts';
import type { SocketAddress } from '../netns/address.ts';
import type { CompiledPolicies } from '../policy/types.ts';
import type { Balancer } from '../routing/balancer.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { PodInfo } from '../zds/types.ts';
import type { ConnectionHome } from './connection.ts';

/** What a listener's connections need of their thread. */
export interface Plane {
  readonly loop: ChannelLoop;
  readonly settings: PlaneSettings;
  readonly log: Logger;
  readonly metrics: ThreadMetrics;
  readonly pool: TunnelPool;
  /** Milliseconds, monotonic; without those in which the thread stood still (running-clock.ts). */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly deadlines: PlaneDeadlines;
  readonly plans: Plans;
  readonly identities: TlsIdentities;
  /** Whether the TLS secrets of a peer go to the key log, if there is one. */
  logsSecretsOf(ip: string): boolean;
  /** Told of every tunnel that this thread opens, by the port of its own end. */
  tunnelOpening(localPort: number): void;
  /** Options of a new HTTP/2 connection. */
  http2(role: 'client' | 'server'): Http2Options;
}

/** How long the steps of a connection may take. */
export interface PlaneDeadlines {
  /** TCP */
  readonly connect: Deadlines;
  /** For one endpoint, while others are left to try. */
  readonly attempt: Deadlines;
  /** TLS */
  readonly handshake: Deadlines;
  /** The peer's HTTP/2 SETTINGS */
  readonly settings: Deadlines;
  /** The answer to a CONNECT request */
  readonly response: Deadlines;
  /** Any sign of a peer that was asked for one */
  readonly silence: Deadlines;
}

/** Settings of the data plane; plain data, given to every thread. */
export interface PlaneSettings {
  readonly mark: number;
  readonly reusePort: boolean;
  readonly ipv6: boolean;
  /** Whether the application sees the client's address (spec §2.1); null is best effort. */
  readonly originalSource: boolean | null;
  readonly keepalive: { readonly time: number; readonly interval: number; readonly retries: number } | null;
  readonly userTimeoutMs: number;
  readonly localhostAppTunnel: boolean;
  readonly responseBaggage: boolean;
  readonly maxConnectionsPerPod: number;
  readonly maxHandshakesPerPod: number;
  /** All in ms. */
  readonly connectTimeout: number;
  /** For one endpoint, while others are left to try. */
  readonly attemptTimeout: number;
  readonly ejectionTime: number;
  readonly ejectionMaxTime: number;
  readonly handshakeTimeout: number;
  readonly settingsTimeout: number;
  readonly responseTimeout: number;
  /** 0..100 */
  readonly ejectionMaxPercent: number;
  readonly maxStreamsPerTunnel: number;
  readonly tunnelIdleTimeout: number;
  readonly tunnelMaxAge: number;
  readonly streamWindow: number;
  readonly connectionWindow: number;
  readonly frameSize: number;
  /** Bytes that the receive windows of all threads may promise together. */
  readonly windowBudget: number;
  readonly tlsGroups: string;
  readonly tls12: boolean;
  /** '' for none */
  readonly keyLogPath: string;
  /** Peers whose secrets are logged, addresses and CIDR ranges; null for all. */
  readonly keyLogAddresses: readonly string[] | null;
  readonly policyInfoLogging: boolean;
}

export interface Plans {
  /** The plan, when it is cached; otherwise null, and `done` is called once it is there. */
  outbound(pod: Pod, target: SocketAddress, peerIp: string, done: (plan: OutboundPlan) => void): OutboundPlan | null;
  inbound(pod: Pod, query: InboundQuery, done: (plan: InboundPlan) => void): InboundPlan | null;
}

/** What an inbound connection asks the control thread. */
export type InboundQuery =
  | {
      readonly kind: 'hbone';
      readonly localIp: string;
      readonly peerIp: string;
      readonly authority: string;
      readonly forwardedHost: string | null;
      readonly fromNetwork: string | null;
    }
  | { readonly kind: 'plaintext'; readonly peerIp: string; readonly originalDestination: SocketAddress };

export interface TlsIdentities {
  /** The TLS context of an identity, now when it is there; otherwise null, and `done` is called later. */
  context(identity: string, done: (context: number | CulvertError) => void): number | null;
}

/** A tunnel that is being opened, to a pod or from it. */
export interface Handshake {
  /** `client` when this agent opens it. */
  readonly role: 'client' | 'server';
  /** Ends it at once. */
  abandon(why: Abandonment): void;
}

export type Abandonment = 'pod-stopped' | 'too-many-handshakes';

/** An enrolled pod as one thread knows it. */
export interface Pod extends ConnectionHome {
  readonly info: PodInfo;
  /** Descriptor of its network namespace; -1 for the own one. */
  readonly netns: number;
  /** Connections to the application can carry the client's address. */
  readonly canSpoof: boolean;
  /** SPIFFE id of the workload; null until the mesh state knows it. */
  readonly identity: string | null;
  readonly policies: CompiledPolicies | null;
  readonly stopped: boolean;
  readonly handshakes: Set<Handshake>;
  /** Chooses the endpoints of its outbound connections. */
  readonly balancer: Balancer;
  /** Calls back once the identity is known, with null when that takes longer than allowed. */
  whenIdentified(done: (identity: string | null) => void): void;
  /** Calls back once, when its policies are others. */
  whenPoliciesChange(done: () => void): void;
}

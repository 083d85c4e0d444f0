/** What the control thread and the data-plane threads say to each other. Plain data, structured-clonable. */
import type { LiveConnection } from '../explain/connection.ts';
import type { ConnectionDump } from '../filters/connection.ts';
import type { InboundQuery, PlaneSettings } from '../filters/plane.ts';
import type { WorkloadCertificate } from '../identity/certificate.ts';
import type { LogFormat } from '../log/line.ts';
import type { ThreadReport } from '../metrics/thread-metrics.ts';
import type { SocketAddress } from '../netns/address.ts';
import type { EndpointHealth } from '../routing/balancer.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { PodInfo } from '../zds/types.ts';
import type { PodMeshState } from './pod-mesh-state.ts';
import type { ListenerInfo } from './pod-runtime.ts';

/** What a thread is started with. */
export interface WorkerData {
  readonly name: string;
  /** Number of the thread, from 1; kept when it is started again. */
  readonly index: number;
  /** See TunnelAffinity. */
  readonly affinity: SharedArrayBuffer;
  /** See WindowBudget. */
  readonly budget: SharedArrayBuffer;
  readonly settings: PlaneSettings;
  /** Revocation lists in force, as `ChannelLoop.setRevocations` takes them; null when there are to be none. */
  readonly revocations: Uint8Array | null;
  readonly logLevel: string;
  readonly logFormat: LogFormat;
}

export type ToWorker =
  /** `netns` is a descriptor of this process; it stays open until `stop-pod` is answered. */
  | {
      readonly kind: 'start-pod';
      readonly id: number;
      readonly pod: PodInfo;
      readonly netns: number;
      readonly state: PodMeshState;
      /** See ConnectionCounts. */
      readonly counts: SharedArrayBuffer;
    }
  | { readonly kind: 'stop-pod'; readonly id: number; readonly uid: string }
  | { readonly kind: 'pod-state'; readonly uid: string; readonly state: PodMeshState }
  | { readonly kind: 'certificate'; readonly identity: string; readonly certificate: WorkloadCertificate }
  | { readonly kind: 'no-certificate'; readonly identity: string; readonly error: string }
  | { readonly kind: 'forget-certificate'; readonly identity: string }
  | { readonly kind: 'revocations'; readonly lists: Uint8Array }
  /** Answers `ask-plan`; null when planning failed. */
  | { readonly kind: 'plan'; readonly id: number; readonly plan: OutboundPlan | InboundPlan | null }
  /** These plans, by the ids of their questions, are not to be used any more. */
  | { readonly kind: 'invalidate'; readonly plans: readonly number[] }
  /** A tunnel that another thread accepted; the descriptor belongs to the receiver. */
  | { readonly kind: 'tunnel'; readonly uid: string; readonly fd: number; readonly ends: TunnelEnds }
  | { readonly kind: 'report'; readonly id: number }
  | { readonly kind: 'connections'; readonly id: number }
  /** Asks for the endpoints that could not be reached. */
  | { readonly kind: 'unhealthy'; readonly id: number }
  /** Asks for one live connection by the number it has in the thread. */
  | { readonly kind: 'connection'; readonly id: number; readonly number: number }
  | { readonly kind: 'log-level'; readonly id: number; readonly spec: string }
  | { readonly kind: 'collect-young' }
  /** Take no new connections; end when the last one has, at the latest after `deadlineMs`. */
  | { readonly kind: 'drain'; readonly deadlineMs: number };

export type FromWorker =
  | { readonly kind: 'ready' }
  /** Answers `start-pod`, `stop-pod` and `log-level`; `error` is '' when it went well. */
  | { readonly kind: 'done'; readonly id: number; readonly error: string }
  | { readonly kind: 'ask-plan'; readonly id: number; readonly query: PlanQuery }
  | { readonly kind: 'ask-certificate'; readonly identity: string }
  | { readonly kind: 'report'; readonly id: number; readonly report: ThreadReport }
  | { readonly kind: 'connections'; readonly id: number; readonly pods: readonly PodSnapshot[] }
  | { readonly kind: 'unhealthy'; readonly id: number; readonly endpoints: readonly PodEndpointHealth[] }
  | { readonly kind: 'connection'; readonly id: number; readonly connection: LiveConnection | null }
  /** A tunnel that belongs to thread `to`, which opened its other end. */
  | {
      readonly kind: 'pass-on';
      readonly to: number;
      readonly uid: string;
      readonly fd: number;
      readonly ends: TunnelEnds;
    }
  | { readonly kind: 'drained' };

/** The addresses of a tunnel that was accepted. */
export interface TunnelEnds {
  readonly peerIp: string;
  readonly peerPort: number;
  readonly destinationIp: string;
  readonly destinationPort: number;
}

export type PlanQuery =
  | { readonly kind: 'outbound'; readonly uid: string; readonly target: SocketAddress; readonly peerIp: string }
  | { readonly kind: 'inbound'; readonly uid: string; readonly query: InboundQuery };

/** What the connections of a pod have met at an endpoint, in one thread. */
export type PodEndpointHealth = EndpointHealth & { readonly pod: string };

/** A pod as one thread sees it, for the config dump. */
export interface PodSnapshot {
  readonly uid: string;
  readonly listeners: readonly (ListenerInfo & { readonly filters: readonly string[] })[];
  readonly connections: readonly (ConnectionDump & { readonly number: number })[];
  readonly unhealthyEndpoints: readonly EndpointHealth[];
}

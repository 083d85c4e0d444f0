import type { TrafficHandle } from '../metrics/traffic.ts';
import type { ResponseFlag, TrafficLabels } from '../metrics/traffic-labels.ts';
import type { RelayEnd, RelayOwner } from '../relay/byte-counter.ts';
import type { ServiceLabels, WorkloadLabels } from '../routing/plan.ts';
import type { FilterChain } from './chain.ts';
import { broken, PENDING, type Refusal } from './verdict.ts';

export type ListenerName = 'outbound' | 'inbound-plaintext' | 'inbound-hbone';
/** As the pod sees it. */
export type Direction = 'inbound' | 'outbound';

/** What is known of a connection once it is known where it goes: both sides, for log and metrics. */
export interface ConnectionContext {
  readonly source: WorkloadLabels | null;
  readonly destination: WorkloadLabels | null;
  readonly service: ServiceLabels | null;
  /** SPIFFE ids that mTLS proves; '' for plain text. */
  readonly sourceIdentity: string;
  readonly destinationIdentity: string;
  /** `dst.addr` of the access log (spec §13.4). */
  readonly destinationAddress: string;
  /** Authority of the CONNECT request; '' for plain text. */
  readonly hboneAddress: string;
  /** How its traffic is counted. */
  readonly labels: TrafficLabels;
}

/** Whose connection it is: the pod's book of live connections, and the counters they share. */
export interface ConnectionHome {
  readonly connections: Set<ProxiedConnection> & {
    /** Of the pod, in all threads. */
    total(direction: Direction): number;
  };
  readonly traffic: {
    open(labels: TrafficLabels): TrafficHandle;
    received(handle: TrafficHandle, bytes: number): void;
    sent(handle: TrafficHandle, bytes: number): void;
    close(handle: TrafficHandle, flag: ResponseFlag): void;
  };
}

let nextId = 1;

/**
 * One connection on its way through a listener's filter chain and, when they all let it pass, through a relay.
 * Subclasses know how to reach the other side.
 */
export abstract class ProxiedConnection implements RelayOwner {
  /** Unique in its thread. */
  readonly id = nextId++;
  readonly home: ConnectionHome;
  readonly listener: ListenerName;
  readonly peerIp: string;
  readonly peerPort: number;
  /** The original destination, or the tunnel's own end. */
  readonly destinationIp: string;
  readonly destinationPort: number;
  /** In ms, by a clock that goes on while the thread stands still. */
  readonly startedAt = performance.now();
  /** Set by the filter that finds out, else by `know`; see FilterChain. */
  context: ConnectionContext | null = null;
  filterIndex = 0;
  traffic: TrafficHandle = -1;
  bytesFromClient = 0;
  bytesFromServer = 0;
  #phase: 'filtering' | 'connecting' | 'over' = 'filtering';

  constructor(
    home: ConnectionHome,
    listener: ListenerName,
    peer: { ip: string; port: number },
    destination: { ip: string; port: number },
  ) {
    this.home = home;
    this.listener = listener;
    this.peerIp = peer.ip;
    this.peerPort = peer.port;
    this.destinationIp = destination.ip;
    this.destinationPort = destination.port;
  }

  get direction(): Direction {
    return this.listener === 'outbound' ? 'outbound' : 'inbound';
  }

  get isOver(): boolean {
    return this.#phase === 'over';
  }

  received(bytes: number): void {
    this.bytesFromClient += bytes;
    this.home.traffic.received(this.traffic, bytes);
  }

  sent(bytes: number): void {
    this.bytesFromServer += bytes;
    this.home.traffic.sent(this.traffic, bytes);
  }

  /** Goes on through the chain; called at the start and whenever what a filter waited for is there. */
  proceed(): void {
    if (this.#phase !== 'filtering') return;
    const verdict = this.chain().run(this);
    if (verdict === PENDING) return;
    if (verdict.kind === 'continue') {
      this.#phase = 'connecting';
      this.pass();
    } else if (verdict.kind !== 'pending') {
      this.refuse(verdict);
    }
  }

  /** The context, found out after the filters have let the connection pass; or another one than they were told. */
  protected know(context: ConnectionContext): void {
    const before = this.context;
    this.context = context;
    if (before === null) this.chain().opened(this);
    else this.chain().moved(this, before);
  }

  /** Ends the connection that did not get through, or was not able to reach the other side. */
  refuse(refusal: Refusal): void {
    if (this.#phase === 'over') return;
    this.dismiss(refusal);
    this.finish(refusal);
  }

  relayEnded(end: RelayEnd): void {
    if (end.kind === 'complete') this.finish(null);
    else this.finish(broken('connection-broken', `broken on the ${end.side}'s side: ${end.detail}`));
  }

  /** The last word: log and counters. `refusal` is null when all went well. */
  finish(refusal: Refusal | null): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.home.connections.delete(this);
    this.chain().completed(this, refusal);
  }

  abstract chain(): FilterChain<this>;
  /** The filters have let it pass. */
  abstract pass(): void;
  /** Closes what is open towards the client, in the listener's manner. */
  abstract dismiss(refusal: Refusal): void;
  /** Ends it now, in whatever state it is. */
  abstract cut(refusal: Refusal): void;
  /** For the config dump (spec §14.4). */
  abstract describe(): ConnectionDump;
}

export interface ConnectionDump {
  readonly direction: 'inbound' | 'outbound';
  readonly src: string;
  readonly originalDst: string | null;
  readonly actualDst: string;
  readonly protocol: 'TCP' | 'HBONE' | 'DOUBLEHBONE';
}

import { type ChannelId, type ChannelLoop, type ListenerHandler, NO_HANDLER } from '../../native/channel.ts';
import { type AcceptedSocket, acceptTcp, closeFd, listenTcp } from '../../native/netns.ts';
import type { Handshake, PlaneSettings, Pod } from '../filters/plane.ts';
import type { TrafficCounters } from '../metrics/traffic.ts';
import { Patience } from '../patience.ts';
import type { CompiledPolicies } from '../policy/types.ts';
import type { Balancer } from '../routing/balancer.ts';
import type { PodInfo } from '../zds/types.ts';
import type { LiveConnections } from './live-connections.ts';

/** A listening socket of a pod, for the config dump. */
export interface ListenerInfo {
  readonly name: 'outbound' | 'inbound-plaintext' | 'inbound-hbone';
  readonly address: string;
  readonly port: number;
}

/** How long a connection waits until the mesh state knows its pod (spec §3.1), in ms. */
const IDENTITY_WAIT = 5000;

/** An enrolled pod in one thread: its listeners, its connections, and what the control thread has told about it. */
export class PodRuntime implements Pod {
  readonly info: PodInfo;
  readonly netns: number;
  readonly connections: LiveConnections;
  readonly handshakes = new Set<Handshake>();
  readonly balancer: Balancer;
  readonly traffic: TrafficCounters;
  readonly listeners: ListenerInfo[] = [];
  canSpoof = false;
  identity: string | null = null;
  policies: CompiledPolicies | null = null;
  stopped = false;
  readonly #loop: ChannelLoop;
  readonly #settings: PlaneSettings;
  #lastIdentity: string | null = null;
  #open: { id: number; fd: number; original: boolean; handler: ListenerHandler }[] = [];
  #undecided: (() => void)[] = [];
  #waiting: { done: (identity: string | null) => void; patience: Patience }[] = [];

  constructor(
    info: PodInfo,
    netns: number,
    loop: ChannelLoop,
    settings: PlaneSettings,
    traffic: TrafficCounters,
    connections: LiveConnections,
    balancer: Balancer,
  ) {
    this.info = info;
    this.netns = netns;
    this.connections = connections;
    this.balancer = balancer;
    this.traffic = traffic;
    this.#loop = loop;
    this.#settings = settings;
  }

  /**
   * Binds one listener in the pod's namespace. `original` asks for the address the client dialled.
   * @throws Error with the errno's name as `code`
   */
  listen(name: ListenerInfo['name'], port: number, original: boolean, handler: ListenerHandler): void {
    const { mark, keepalive, userTimeoutMs, reusePort, ipv6, originalSource } = this.#settings;
    const address = ipv6 ? '::' : '0.0.0.0';
    const { fd, transparent } = listenTcp(this.netns, address, port, {
      mark,
      keepalive,
      userTimeoutMs,
      reusePort,
      transparent: originalSource === null ? 'try' : originalSource ? 'must' : 'no',
      backlog: BACKLOG,
      dualStack: true,
    });
    if (transparent) this.canSpoof = true;
    this.#open.push({ id: this.#loop.listen(fd, original, handler), fd, original, handler });
    this.listeners.push({ name, address, port });
  }

  closeListeners(): void {
    for (const { id } of this.#open.splice(0)) this.#loop.closeListener(id);
    this.listeners.length = 0;
  }

  /**
   * Takes the connections that wait to be accepted, which closing would reset. Each listener is closed before others are
   * emptied: what comes while connections are taken goes to a successor's.
   */
  drainListeners(): void {
    for (const { id, fd, original, handler } of this.#open.splice(0)) {
      try {
        for (let accepted = acceptTcp(fd, original); accepted !== null; accepted = acceptTcp(fd, original)) {
          this.#take(accepted, handler);
        }
      } catch {
        // Out of descriptors: those who wait are lost with the listener.
      }
      this.#loop.closeListener(id);
    }
    this.closeListeners();
  }

  #take({ fd, peer, destination, original }: AcceptedSocket, handler: ListenerHandler): void {
    let channel: ChannelId;
    try {
      // Its owner takes it over within the call, as from the loop.
      channel = this.#loop.attach(fd, NO_HANDLER);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    handler.accepted({
      channel,
      peerIp: peer.ip,
      peerPort: peer.port,
      destinationIp: destination.ip,
      destinationPort: destination.port,
      original,
    });
  }

  whenIdentified(done: (identity: string | null) => void): void {
    if (this.identity !== null || this.stopped) {
      done(this.identity);
      return;
    }
    const entry = {
      done,
      patience: new Patience(IDENTITY_WAIT, () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        done(null);
      }),
    };
    this.#waiting.push(entry);
  }

  whenPoliciesChange(done: () => void): void {
    this.#undecided.push(done);
  }

  /** Those to call because the policies are others. */
  takeUndecided(): (() => void)[] {
    return this.#undecided.splice(0);
  }

  /** Takes what the mesh state says. True when the pod was known by another identity before. */
  identify(identity: string | null): boolean {
    const isAnother = identity !== null && this.#lastIdentity !== null && identity !== this.#lastIdentity;
    this.identity = identity;
    this.#lastIdentity = identity ?? this.#lastIdentity;
    if (identity !== null || this.stopped) {
      for (const { done, patience } of this.#waiting.splice(0)) {
        patience.end();
        done(identity);
      }
    }
    return isAnother;
  }
}

/** The incumbent's (spec §2.1); the kernel's somaxconn bounds it as well. */
const BACKLOG = 128;

import { type Accepted, type ChannelId, ChannelLoop, type ListenerHandler, NO_HANDLER } from '../../native/channel.ts';
import { closeFd } from '../../native/netns.ts';
import { INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from '../config/ports.ts';
import { Deadlines } from '../deadlines.ts';
import { messageOf } from '../errors.ts';
import type { LiveConnection } from '../explain/connection.ts';
import type { Plane, PlaneDeadlines, PlaneSettings, Pod } from '../filters/plane.ts';
import { close } from '../filters/verdict.ts';
import type { Http2Options } from '../hbone/connection.ts';
import { type Breach, ErrorCode } from '../hbone/http-error.ts';
import { TunnelPool } from '../hbone/pool.ts';
import { WindowBudget } from '../hbone/window-budget.ts';
import type { WorkloadCertificate } from '../identity/certificate.ts';
import { createPlaintextListener, type PlaintextListener } from '../inbound/plaintext-listener.ts';
import { createTunnelListener, type TunnelListener } from '../inbound/tunnel-listener.ts';
import type { Logger } from '../log/logger.ts';
import { ENDPOINT_FAILURES, HTTP2_BREACHES, POOL_REQUESTS } from '../metrics/families.ts';
import type { ThreadMetrics } from '../metrics/thread-metrics.ts';
import { createOutboundListener, type OutboundListener } from '../outbound/listener.ts';
import { createTunnelDialer } from '../outbound/tunnel-dialer.ts';
import { Balancer } from '../routing/balancer.ts';
import { createRunningClock } from '../running-clock.ts';
import type { PodInfo } from '../zds/types.ts';
import { addressesWithin } from './address-ranges.ts';
import { reportGauges } from './gauges.ts';
import { LiveConnections } from './live-connections.ts';
import { MemoryRelease } from './memory-release.ts';
import type { PodEndpointHealth, PodSnapshot, TunnelEnds } from './messages.ts';
import { type AskControl, PlanCache } from './plan-cache.ts';
import type { PodMeshState } from './pod-mesh-state.ts';
import { PodRuntime } from './pod-runtime.ts';
import { liveConnectionOf, snapshotOf } from './pod-views.ts';
import { PolicyReview } from './policy-review.ts';
import { TlsContexts } from './tls-identities.ts';
import type { TunnelAffinity } from './tunnel-affinity.ts';

export interface DataPlaneOptions {
  /** Number of the thread, from 1. */
  readonly thread: number;
  readonly settings: PlaneSettings;
  readonly log: Logger;
  readonly metrics: ThreadMetrics;
  readonly askPlan: AskControl;
  readonly askCertificate: (identity: string) => void;
  /** Shared with the other threads; one of its own when left out. */
  readonly budget?: WindowBudget;
  /** The other threads of the process; left out when there are none. */
  readonly siblings?: Siblings;
  /** Where a pod's traffic arrives; the standard ports unless a test wants others. */
  readonly ports?: Ports;
}

export interface Siblings {
  readonly affinity: TunnelAffinity;
  /** Gives a tunnel to the thread that opened its other end; the descriptor is the receiver's. */
  passOn(to: number, uid: string, fd: number, ends: TunnelEnds): void;
}

export interface Ports {
  readonly outbound: number;
  readonly plaintext: number;
  readonly hbone: number;
}

const STANDARD_PORTS: Ports = {
  outbound: OUTBOUND_PORT,
  plaintext: INBOUND_PLAINTEXT_PORT,
  hbone: INBOUND_HBONE_PORT,
};

/** How often deadlines are looked at, and how often tunnels are. */
const TICK = 500;
const TUNNEL_TICK = 1000;

/** Keep-alive of tunnels (spec §6.3): PING after this time without any frame, given up after that. */
const PING_IDLE = 10_000;
const PING_TIMEOUT = 20_000;

/** First receive window of a stream: enough for a local network, little enough for thousands of stalled readers. */
const INITIAL_WINDOW = 256 * 1024;

const MAX_SERVER_STREAMS = 200;
const CLIENT_HEADER_LIST = 16_384;
const SERVER_HEADER_LIST = 65_536;

/** Neither side has failed: no response flag (spec §12.2). */
const POD_STOPPED = close('pod-stopped', 'connection closed due to connection drain', 503, '-');

/** A listener out of descriptors rests this long. */
const ACCEPT_REST = 100;

/** The data plane of one thread: the listeners of every pod, their connections, the tunnels. */
export class DataPlane implements Plane {
  readonly loop: ChannelLoop;
  readonly settings: PlaneSettings;
  readonly log: Logger;
  readonly metrics: ThreadMetrics;
  readonly pool: TunnelPool;
  readonly now = createRunningClock();
  readonly random = Math.random;
  readonly deadlines: PlaneDeadlines;
  readonly plans: PlanCache;
  readonly identities: TlsContexts;
  readonly #thread: number;
  readonly #review = new PolicyReview();
  readonly #siblings: Siblings | null;
  readonly #ports: Ports;
  readonly logsSecretsOf: (ip: string) => boolean;
  readonly #release: MemoryRelease;
  readonly #budget: WindowBudget;
  readonly #breached: Readonly<Record<'client' | 'server', (breach: Breach) => void>>;
  readonly #pods = new Map<string, PodRuntime>();
  readonly #outbound: OutboundListener;
  readonly #plaintext: PlaintextListener;
  readonly #hbone: TunnelListener;
  readonly #observe: (message: string, policy: string | null) => void;
  readonly #timer: NodeJS.Timeout;
  #nextTick: NodeJS.Immediate | null = null;
  #lastTunnelTick = 0;
  #draining: { readonly until: number; readonly done: () => void } | null = null;

  constructor(options: DataPlaneOptions) {
    const { settings, log, metrics } = options;
    this.settings = settings;
    this.#thread = options.thread;
    this.#siblings = options.siblings ?? null;
    this.logsSecretsOf = addressesWithin(settings.keyLogAddresses);
    this.log = log;
    this.metrics = metrics;
    this.#ports = options.ports ?? STANDARD_PORTS;
    this.loop = new ChannelLoop((error) =>
      log.error('proxy', 'a connection was dropped because of an error in the agent', {
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }),
    );
    this.loop.setStreamOptions(settings);
    this.#release = new MemoryRelease(() => this.loop.trim());
    this.deadlines = {
      connect: new Deadlines(settings.connectTimeout, this.now),
      attempt: new Deadlines(settings.attemptTimeout, this.now),
      handshake: new Deadlines(settings.handshakeTimeout, this.now),
      settings: new Deadlines(settings.settingsTimeout, this.now),
      response: new Deadlines(settings.responseTimeout, this.now),
      silence: new Deadlines(settings.attemptTimeout / 2, this.now),
    };
    this.#budget = options.budget ?? new WindowBudget(settings.windowBudget);
    const breached = (role: string) => (breach: Breach) => metrics.add(metrics.slot(HTTP2_BREACHES, role, breach), 1);
    this.#breached = { client: breached('client'), server: breached('server') };
    this.plans = new PlanCache(options.askPlan);
    this.identities = new TlsContexts(this.loop, settings, options.askCertificate, this.log);
    const poolRequests = {
      hit: metrics.slot(POOL_REQUESTS, 'hit'),
      wait: metrics.slot(POOL_REQUESTS, 'wait'),
      miss: metrics.slot(POOL_REQUESTS, 'miss'),
    };
    this.pool = new TunnelPool({
      maxStreams: settings.maxStreamsPerTunnel,
      idleTimeout: settings.tunnelIdleTimeout,
      maxAge: settings.tunnelMaxAge,
      now: this.now,
      random: this.random,
      dial: createTunnelDialer(this, (uid) => this.#pods.get(uid) ?? null),
      count: (result) => metrics.add(poolRequests[result], 1),
    });
    const policyLevel = settings.policyInfoLogging ? 'info' : 'debug';
    this.#observe = (message, policy) => log[policyLevel]('rbac', message, policy === null ? {} : { policy });
    this.#outbound = createOutboundListener(this);
    this.#plaintext = createPlaintextListener(this, this.#observe);
    this.#hbone = createTunnelListener(this, this.#observe);
    reportGauges(metrics, {
      pods: () => this.#pods.values(),
      serverTunnels: () => this.#hbone.all(),
      clientTunnels: () => this.pool.connections(),
    });
    this.#timer = setInterval(() => {
      // What has arrived by now is read first: a peer is not late because this thread had to wait for a processor.
      const now = this.now();
      this.#nextTick = setImmediate(() => this.#tick(now));
    }, TICK);
  }

  tunnelOpening(localPort: number): void {
    this.#siblings?.affinity.claim(localPort);
  }

  http2(role: 'client' | 'server'): Http2Options {
    const { streamWindow, connectionWindow, frameSize, maxStreamsPerTunnel } = this.settings;
    return {
      role,
      initialWindow: Math.min(INITIAL_WINDOW, streamWindow),
      maxWindow: streamWindow,
      connectionWindow,
      maxFrameSize: frameSize,
      maxHeaderListSize: role === 'client' ? CLIENT_HEADER_LIST : SERVER_HEADER_LIST,
      maxConcurrentStreams: MAX_SERVER_STREAMS,
      assumedPeerStreams: maxStreamsPerTunnel,
      budget: this.#budget,
      breached: this.#breached[role],
      now: this.now,
    };
  }

  /**
   * Binds the listeners of a pod: HBONE, plain inbound, outbound (spec §1.7). All or nothing.
   * @param counts see ConnectionCounts
   * @throws Error with the errno's name as `code`
   */
  startPod(info: PodInfo, netns: number, state: PodMeshState, counts: SharedArrayBuffer): void {
    const connections = new LiveConnections(counts, this.#thread);
    const pod = new PodRuntime(
      info,
      netns,
      this.loop,
      this.settings,
      this.metrics.traffic,
      connections,
      this.#newBalancer(),
    );
    pod.policies = state.policies;
    pod.identify(state.identity);
    const { hbone, plaintext, outbound } = this.#ports;
    try {
      pod.listen(
        'inbound-hbone',
        hbone,
        false,
        this.#acceptor(pod, { accept: (_, accepted) => this.#acceptTunnel(pod, accepted) }),
      );
      pod.listen('inbound-plaintext', plaintext, true, this.#acceptor(pod, this.#plaintext));
      pod.listen('outbound', outbound, true, this.#acceptor(pod, this.#outbound));
    } catch (error) {
      pod.closeListeners();
      throw error;
    }
    this.#pods.set(info.uid, pod);
  }

  /** The pod is gone: its listeners, connections and tunnels end at once (spec §16.4). */
  stopPod(uid: string): void {
    const pod = this.#pods.get(uid);
    if (pod === undefined) return;
    this.#pods.delete(uid);
    pod.stopped = true;
    pod.closeListeners();
    for (const handshake of [...pod.handshakes]) handshake.abandon('pod-stopped');
    pod.identify(null);
    for (const connection of [...pod.connections]) connection.cut(POD_STOPPED);
    for (const tunnel of [...this.#hbone.tunnels(pod)]) tunnel.abort(ErrorCode.NO_ERROR, 'the pod is gone');
    this.pool.closePod(uid, ErrorCode.NO_ERROR);
    this.plans.forget(uid);
  }

  /** What the mesh state says of the pod. Live connections that are now denied end at once (spec §5.4). */
  updatePod(uid: string, { identity, policies }: PodMeshState): void {
    const pod = this.#pods.get(uid);
    if (pod === undefined) return;
    pod.policies = policies;
    // Peers of the tunnels that are open were verified against the trust domain of before.
    if (pod.identify(identity)) for (const tunnel of [...this.#hbone.tunnels(pod)]) tunnel.drain();
    this.#review.begin(pod);
  }

  /** Takes over a tunnel to a pod that another thread accepted. */
  takeOver(uid: string, fd: number, ends: TunnelEnds): void {
    const pod = this.#pods.get(uid);
    if (pod === undefined) {
      closeFd(fd);
      return;
    }
    let channel: ChannelId;
    try {
      channel = this.loop.attach(fd, NO_HANDLER);
    } catch (error) {
      closeFd(fd);
      this.log.warn('proxy', 'a tunnel cannot be taken over', { pod: uid, error: messageOf(error) });
      return;
    }
    this.#hbone.accept(pod, { channel, original: false, ...ends });
  }

  setCertificate(identity: string, certificate: WorkloadCertificate): void {
    // New tunnels use the new certificate; the old ones finish what they carry.
    if (this.identities.set(identity, certificate)) this.pool.retireSource(identity);
  }

  /** No pod has that identity any more: its key goes. */
  forgetCertificate(identity: string): void {
    this.identities.forget(identity);
    this.pool.retireSource(identity);
  }

  /** Takes no new connections; `done` is called after the last one has ended or was cut at the deadline (spec §16.3). */
  drain(deadlineMs: number, done: () => void): void {
    for (const pod of this.#pods.values()) pod.drainListeners();
    this.#hbone.drain();
    // Whoever ends the process does not wait while this thread stands still.
    this.#draining = { until: performance.now() + deadlineMs, done };
    this.#checkDrained();
  }

  snapshot(): PodSnapshot[] {
    return snapshotOf(this.#pods, {
      outbound: this.#outbound.filters,
      'inbound-plaintext': this.#plaintext.filters,
      'inbound-hbone': this.#hbone.filters,
    });
  }

  unhealthyEndpoints(): PodEndpointHealth[] {
    return [...this.#pods].flatMap(([pod, { balancer }]) => balancer.unhealthy().map((health) => ({ ...health, pod })));
  }

  /** A live connection by its number; null when there is none. */
  liveConnection(number: number): LiveConnection | null {
    return liveConnectionOf(this.#pods, number);
  }

  stop(): void {
    clearInterval(this.#timer);
    clearImmediate(this.#nextTick ?? undefined);
    this.loop.stop();
  }

  #newBalancer(): Balancer {
    const { ejectionTime, ejectionMaxTime, ejectionMaxPercent } = this.settings;
    return new Balancer({
      ejectionTime,
      maxEjectionTime: ejectionMaxTime,
      maxEjectedPercent: ejectionMaxPercent,
      now: this.now,
      random: this.random,
      onFailure: (result) => this.metrics.add(this.metrics.slot(ENDPOINT_FAILURES, result), 1),
    });
  }

  #acceptTunnel(pod: PodRuntime, accepted: Accepted): void {
    const siblings = this.#siblings;
    const owner = siblings === null ? 0 : siblings.affinity.otherOwner(accepted.peerPort);
    if (siblings === null || owner === 0) {
      this.#hbone.accept(pod, accepted);
      return;
    }
    const { peerIp, peerPort, destinationIp, destinationPort } = accepted;
    const fd = this.loop.detach(accepted.channel);
    if (fd >= 0) siblings.passOn(owner, pod.info.uid, fd, { peerIp, peerPort, destinationIp, destinationPort });
  }

  #acceptor(pod: PodRuntime, listener: { accept(pod: Pod, accepted: Accepted): void }): ListenerHandler {
    return {
      accepted: (accepted) => listener.accept(pod, accepted),
      failed: (error, id) => {
        this.log.warn('proxy', 'a listener rests because connections cannot be accepted', {
          pod: pod.info.uid,
          error: messageOf(error),
        });
        setTimeout(() => this.loop.resumeListener(id), ACCEPT_REST);
      },
    };
  }

  #tick(now: number): void {
    for (const deadlines of Object.values(this.deadlines)) deadlines.tick(now);
    if (now - this.#lastTunnelTick >= TUNNEL_TICK) {
      this.#lastTunnelTick = now;
      this.pool.tick();
      this.#release.observe(this.loop.size);
      this.loop.releaseBuffers();
      for (const { balancer } of this.#pods.values()) balancer.tick();
      for (const tunnel of [...this.pool.connections(), ...this.#hbone.all()])
        tunnel.keepAlive(PING_IDLE, PING_TIMEOUT);
    }
    this.#checkDrained();
  }

  #checkDrained(): void {
    const draining = this.#draining;
    if (draining === null) return;
    let live = 0;
    for (const pod of this.#pods.values()) live += pod.connections.size + pod.handshakes.size;
    // Requests may be on their way in tunnels that have no stream yet: the tunnels close when they cannot be any more.
    for (const { streamCount } of this.#hbone.all()) if (streamCount === 0) live++;
    if (live > 0 && performance.now() < draining.until) return;
    if (live > 0) {
      this.log.warn('proxy', 'drain duration expired with pending connections, forcefully shutting down', {
        connections: live,
      });
    }
    for (const uid of [...this.#pods.keys()]) this.stopPod(uid);
    // What tunnels have queued still has to leave.
    if (this.loop.size > 0 && performance.now() < draining.until) return;
    this.#draining = null;
    draining.done();
  }
}

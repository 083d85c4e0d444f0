import type { Accepted, ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { Deadline } from '../deadlines.ts';
import type { CulvertError } from '../errors.ts';
import { FilterChain } from '../filters/chain.ts';
import { limits } from '../filters/limits.ts';
import { isIllegalPort, loopGuard } from '../filters/loop-guard.ts';
import { accessLog, stats } from '../filters/observers.ts';
import type { Abandonment, Handshake, Plane, Pod } from '../filters/plane.ts';
import { policy } from '../filters/policy.ts';
import type { RequestHead } from '../hbone/connect-headers.ts';
import { responseHeaders } from '../hbone/connect-headers.ts';
import type { Http2Connection } from '../hbone/connection.ts';
import { ErrorCode, type Http2Error } from '../hbone/http-error.ts';
import type { Http2Stream, StreamHandler } from '../hbone/stream.ts';
import { expectSettings, handshakeMessage, tunnelOnChannel } from '../hbone/tunnel.ts';
import { parseSpiffeId } from '../identity/spiffe.ts';
import { CRL_REJECTIONS, EARLY_DENIES, TUNNEL_HANDSHAKES, TUNNEL_TIMEOUTS } from '../metrics/families.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { PolicyObserver } from '../policy/evaluate.ts';
import { connect } from './filters.ts';
import { authority, metadata } from './tunnel-filters.ts';
import { TunnelStream } from './tunnel-stream.ts';

/** The HBONE listener of a thread: tunnels from other agents, on 15008 (spec §4). */
export interface TunnelListener {
  readonly filters: readonly string[];
  accept(pod: Pod, accepted: Accepted): void;
  /** Tunnels that are open in a pod. */
  tunnels(pod: Pod): ReadonlySet<Http2Connection>;
  /** Every tunnel that is open. */
  all(): Iterable<Http2Connection>;
  /** Tunnels take no new streams from now on, and close after their last one. */
  drain(): void;
}

export function createTunnelListener(plane: Plane, observe: PolicyObserver | null): TunnelListener {
  const chain = new FilterChain<TunnelStream>(
    'inbound-hbone',
    [
      authority(),
      loopGuard(({ plan }) => plan?.kind === 'deliver' && isIllegalPort(plan.target.port)),
      limits(plane.settings.maxConnectionsPerPod),
      policy(observe),
      connect(),
      metadata(),
      accessLog(plane.log),
      stats(),
    ],
    plane.metrics,
  );
  const open = new Map<Pod, Set<Http2Connection>>();
  let draining = false;
  return {
    filters: ['tls-identity', ...chain.names],
    accept(pod, accepted) {
      new InboundTunnel(plane, pod, accepted, chain, {
        opened(connection) {
          const tunnels = open.get(pod) ?? new Set();
          open.set(pod, tunnels.add(connection));
          // Its handshake was under way when draining began: the client hears at once to go elsewhere.
          if (draining) connection.drain();
        },
        closed(connection) {
          const tunnels = open.get(pod);
          tunnels?.delete(connection);
          if (tunnels?.size === 0) open.delete(pod);
        },
      }).start();
    },
    tunnels: (pod) => open.get(pod) ?? NONE,
    *all() {
      for (const tunnels of open.values()) yield* tunnels;
    },
    drain() {
      draining = true;
      for (const tunnels of [...open.values()]) for (const tunnel of [...tunnels]) tunnel.drain();
    },
  };
}

const ABANDONED: Readonly<Record<Abandonment, string>> = {
  'pod-stopped': 'connection closed due to connection drain',
  'too-many-handshakes': 'tls handshake error: given up for later ones (limit: CULVERT_MAX_HANDSHAKES_PER_POD)',
};

const NONE: ReadonlySet<Http2Connection> = new Set();

/** One connection to 15008, from TCP to the end of its streams. */
class InboundTunnel implements ChannelHandler, Handshake {
  readonly role = 'server';
  readonly #plane: Plane;
  readonly #pod: Pod;
  readonly #accepted: Accepted;
  readonly #channel: ChannelId;
  readonly #chain: FilterChain<TunnelStream>;
  readonly #events: { opened(connection: Http2Connection): void; closed(connection: Http2Connection): void };
  #deadline: Deadline | null = null;
  /** Whose certificate is shown, once it is known. */
  #identity: string | null = null;
  #over = false;

  constructor(
    plane: Plane,
    pod: Pod,
    accepted: Accepted,
    chain: FilterChain<TunnelStream>,
    events: { opened(connection: Http2Connection): void; closed(connection: Http2Connection): void },
  ) {
    this.#plane = plane;
    this.#pod = pod;
    this.#accepted = accepted;
    this.#channel = accepted.channel;
    this.#chain = chain;
    this.#events = events;
  }

  /** The certificate of the pod and its trust domain are needed first. */
  start(): void {
    const { loop, deadlines, metrics } = this.#plane;
    loop.adopt(this.#channel, this);
    this.#pod.handshakes.add(this);
    this.#makeRoom();
    this.#deadline = deadlines.handshake.set(() => {
      metrics.add(metrics.slot(TUNNEL_TIMEOUTS, 'server', 'tls-handshake'), 1);
      this.#refuse('TLS', 'tls handshake error: the peer took too long');
    });
    this.#pod.whenIdentified((identity) => {
      if (this.#over) return;
      const { info } = this.#pod;
      if (identity === null) {
        const name = `${info.serviceAccount}.${info.namespace} (${info.name})`;
        this.#refuse('unknown-local-workload', `failed to fetch information about local workload: ${name}`);
        return;
      }
      const secure = (context: number | CulvertError) => this.#secure(identity, context);
      const context = this.#plane.identities.context(identity, secure);
      if (context !== null) secure(context);
    });
  }

  secured(): void {
    this.#over = true;
    this.#deadline?.clear();
    this.#pod.handshakes.delete(this);
    const { loop, metrics, deadlines } = this.#plane;
    const { peerIp, peerPort, destinationIp, destinationPort } = this.#accepted;
    const side = {
      pod: this.#pod,
      peerIp,
      peerPort,
      localIp: destinationIp,
      localPort: destinationPort,
      peerIdentity: loop.peer(this.#channel)?.identity ?? '',
    };
    const connection: Http2Connection = tunnelOnChannel(loop, this.#channel, this.#plane.http2('server'), {
      request: (stream, head) => this.#request(side, stream, head),
      goingAway() {},
      streamClosed() {},
      closed: (error) => {
        this.#events.closed(connection);
        if (error !== null) this.#brokenBy(error);
      },
    });
    metrics.add(metrics.slot(TUNNEL_HANDSHAKES, 'server', 'ok'), 1);
    expectSettings(connection, deadlines.settings);
    this.#events.opened(connection);
    // The workload got another identity during the handshake: whom to trust has changed.
    if (this.#pod.identity !== this.#identity) connection.drain();
  }

  abandon(why: Abandonment): void {
    this.#refuse(why, ABANDONED[why]);
  }

  failed(error: ChannelError): void {
    this.#refuse(error.code, handshakeMessage(error));
  }

  ended(): void {
    this.#refuse('TLS', 'tls handshake error: the peer closed the connection during the handshake');
  }

  data(): number {
    return 0;
  }

  connected(): void {}
  drained(): void {}
  closed(): void {}

  /** A crowd of handshakes that do not go on gives way to those that may. */
  #makeRoom(): void {
    const { maxHandshakesPerPod: most } = this.#plane.settings;
    const { handshakes } = this.#pod;
    if (most === 0 || handshakes.size <= most) return;
    // In the order they were started.
    const pending = [...handshakes].filter(({ role }) => role === 'server');
    if (pending.length > most) pending[0]!.abandon('too-many-handshakes');
  }

  #secure(identity: string, context: number | CulvertError): void {
    if (this.#over) return;
    this.#identity = identity;
    if (typeof context !== 'number') {
      this.#refuse('no-certificate', context.message);
      return;
    }
    try {
      const { trustDomain } = parseSpiffeId(identity);
      const logSecrets = this.#plane.logsSecretsOf(this.#accepted.peerIp);
      this.#plane.loop.startTls(this.#channel, context, 'server', [], trustDomain, logSecrets);
    } catch (error) {
      this.#refuse('TLS', (error as CulvertError).message);
    }
  }

  #refuse(reason: string, message: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#deadline?.clear();
    this.#pod.handshakes.delete(this);
    const { loop, metrics } = this.#plane;
    loop.close(this.#channel);
    metrics.add(metrics.slot(TUNNEL_HANDSHAKES, 'server', reason), 1);
    metrics.add(metrics.slot(EARLY_DENIES, 'destination', reason), 1);
    if (reason === 'CERT_REVOKED') metrics.add(metrics.slot(CRL_REJECTIONS, 'destination'), 1);
    this.#logFailed(message);
  }

  /** The peer broke HTTP/2. Its streams, if there were any, say so for themselves. */
  #brokenBy(error: Http2Error): void {
    const { metrics } = this.#plane;
    metrics.add(metrics.slot(EARLY_DENIES, 'destination', 'h2-breach'), 1);
    this.#logFailed(`h2 failed: ${error.message}`);
  }

  #request(side: ConstructorParameters<typeof TunnelStream>[1], stream: Http2Stream, head: RequestHead): StreamHandler {
    if (head.kind === 'connect') {
      const connection = new TunnelStream(this.#plane, side, stream, head, this.#chain);
      // Only once the stream has its handler: the first filters may answer at once.
      stream.handler = connection;
      connection.proceed();
      return stream.handler;
    }
    const { metrics } = this.#plane;
    metrics.add(metrics.slot(EARLY_DENIES, 'destination', 'not-connect'), 1);
    this.#logFailed(
      `expected method CONNECT, got ${head.kind === 'other-method' ? head.method : 'a malformed request'}`,
    );
    stream.respond(responseHeaders(400, null), true);
    stream.reset(ErrorCode.NO_ERROR);
    return stream.handler;
  }

  #logFailed(error: string): void {
    const { peerIp, peerPort, destinationIp, destinationPort } = this.#accepted;
    this.#plane.log.access({
      kind: 'failed',
      sourceAddress: formatSocketAddress({ ip: peerIp, port: peerPort }),
      destinationAddress: formatSocketAddress({ ip: destinationIp, port: destinationPort }),
      direction: 'inbound',
      error,
    });
  }
}

import type { ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { Deadline } from '../deadlines.ts';
import { CulvertError } from '../errors.ts';
import type { Handshake, Plane, Pod } from '../filters/plane.ts';
import type { Http2Connection } from '../hbone/connection.ts';
import type { Http2Error } from '../hbone/http-error.ts';
import type { DialEvents, TunnelKey } from '../hbone/pool.ts';
import { expectSettings, handshakeMessage, tunnelOnChannel } from '../hbone/tunnel.ts';
import { TUNNEL_HANDSHAKES } from '../metrics/families.ts';
import { formatSocketAddress } from '../netns/address.ts';

/** Opens tunnels for the pool: TCP from the pod's namespace, TLS with the pod's certificate, HTTP/2. */
export function createTunnelDialer(
  plane: Plane,
  podOf: (uid: string) => Pod | null,
): (key: TunnelKey, events: DialEvents) => void {
  return (key, events) => {
    const pod = podOf(key.pod);
    if (pod === null) {
      events.failed(new CulvertError('POOL_DRAINING', 'pool draining'));
      return;
    }
    const start = (context: number | CulvertError) => {
      if (typeof context !== 'number') events.failed(context);
      // The number of its namespace's descriptor may stand for another pod's by now.
      else if (pod.stopped) events.failed(new CulvertError('POOL_DRAINING', 'pool draining'));
      else new Dial(plane, pod, key, events).start();
    };
    // Without a certificate there is nothing to connect for.
    const context = plane.identities.context(key.source, start);
    if (context !== null) start(context);
  };
}

class Dial implements ChannelHandler, Handshake {
  readonly role = 'client';
  readonly #plane: Plane;
  readonly #pod: Pod;
  readonly #key: TunnelKey;
  readonly #events: DialEvents;
  #channel: ChannelId = 0;
  #deadline: Deadline | null = null;
  #step: 'connect' | 'handshake' | 'done' = 'connect';

  constructor(plane: Plane, pod: Pod, key: TunnelKey, events: DialEvents) {
    this.#plane = plane;
    this.#pod = pod;
    this.#key = key;
    this.#events = events;
  }

  start(): void {
    const { loop, deadlines } = this.#plane;
    try {
      this.#channel = loop.connect(this.#pod.netns, this.#key.ip, this.#key.port, null, this);
    } catch (error) {
      this.#fail(connectError(error as CulvertError));
      return;
    }
    this.#plane.tunnelOpening(loop.localPort(this.#channel));
    this.#pod.handshakes.add(this);
    this.#deadline = deadlines.connect.set(() => this.#fail(connectError(TIMED_OUT)));
  }

  connected(): void {
    const { deadlines, identities } = this.#plane;
    this.#deadline?.clear();
    this.#step = 'handshake';
    this.#deadline = deadlines.handshake.set(() =>
      this.#fail(new CulvertError('TLS', 'tls handshake error: the peer took too long')),
    );
    // Asked for now: the certificate may have been replaced while the connection was made.
    const context = identities.context(this.#key.source, (later) => this.#secure(later));
    if (context !== null) this.#secure(context);
  }

  secured(): void {
    this.#step = 'done';
    this.#deadline?.clear();
    this.#pod.handshakes.delete(this);
    const { loop, pool, metrics, deadlines } = this.#plane;
    const connection: Http2Connection = tunnelOnChannel(loop, this.#channel, this.#plane.http2('client'), {
      request: () => {
        // Unreachable: the connection refuses requests in the client role.
        throw new CulvertError('INTERNAL', 'request on a client connection');
      },
      goingAway: () => pool.retired(connection),
      streamClosed: () => pool.streamClosed(connection),
      closed: (error) => {
        pool.closed(connection);
        if (error !== null) this.#brokenBy(error);
      },
    });
    metrics.add(metrics.slot(TUNNEL_HANDSHAKES, 'client', 'ok'), 1);
    expectSettings(connection, deadlines.handshake);
    this.#events.opened(connection);
  }

  abandon(): void {
    this.#fail(new CulvertError('POOL_DRAINING', 'pool draining'));
  }

  failed(error: ChannelError): void {
    this.#fail(
      this.#step === 'connect'
        ? connectError(error)
        : new CulvertError(error.code, handshakeMessage(error), { cause: error }),
    );
  }

  ended(): void {
    this.#fail(new CulvertError('TLS', 'tls handshake error: the peer closed the connection during the handshake'));
  }

  data(): number {
    return 0;
  }

  drained(): void {}
  closed(): void {}

  #secure(context: number | CulvertError): void {
    if (this.#step !== 'handshake') return;
    if (typeof context !== 'number') {
      this.#fail(context);
      return;
    }
    try {
      this.#plane.loop.startTls(this.#channel, context, 'client', this.#key.expected, '');
    } catch (error) {
      this.#fail(error as CulvertError);
    }
  }

  #brokenBy(error: Http2Error): void {
    this.#plane.log.warn('proxy', 'a tunnel ended because its peer broke HTTP/2', {
      pod: this.#pod.info.uid,
      peer: formatSocketAddress({ ip: this.#key.ip, port: this.#key.port }),
      error: error.message,
    });
  }

  #fail(error: CulvertError): void {
    if (this.#step === 'done') return;
    this.#step = 'done';
    this.#deadline?.clear();
    this.#pod.handshakes.delete(this);
    if (this.#channel !== 0) this.#plane.loop.close(this.#channel);
    const { metrics } = this.#plane;
    metrics.add(metrics.slot(TUNNEL_HANDSHAKES, 'client', error.code), 1);
    this.#events.failed(error);
  }
}

const TIMED_OUT = new CulvertError('ETIMEDOUT', 'deadline has elapsed');

function connectError(error: CulvertError): CulvertError {
  if (error.code === 'ETIMEDOUT') {
    return new CulvertError(
      'ETIMEDOUT',
      `connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: ${error.message}`,
      { cause: error },
    );
  }
  return new CulvertError(error.code, `connection failed: ${error.message}`, { cause: error });
}

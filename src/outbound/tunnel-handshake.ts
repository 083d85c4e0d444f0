import type { ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { Deadline } from '../deadlines.ts';
import { CulvertError } from '../errors.ts';
import type { Handshake, Plane, Pod } from '../filters/plane.ts';
import type { Http2Connection } from '../hbone/connection.ts';
import type { Http2Error } from '../hbone/http-error.ts';
import { expectSettings, handshakeMessage, tunnelOnChannel } from '../hbone/tunnel.ts';
import { CRL_REJECTIONS, TUNNEL_HANDSHAKES, TUNNEL_TIMEOUTS } from '../metrics/families.ts';

/** What a tunnel is to prove, and who hears of it. */
export interface HandshakeOptions {
  /** SPIFFE id whose certificate is shown. */
  readonly source: string;
  /** SPIFFE ids of which the peer must show one. */
  readonly expected: readonly string[];
  /** Names the peer in the log. */
  readonly peer: string;
  /** See `Plane.logsSecretsOf`. */
  readonly logSecrets: boolean;
  /** One of them is called, once. */
  opened(connection: Http2Connection, peerIdentity: string): void;
  failed(error: CulvertError): void;
  /** A stream of the tunnel has ended. */
  streamClosed(connection: Http2Connection): void;
}

/** The client's half of opening a tunnel on a channel that is connected: TLS, then HTTP/2. */
export class TunnelHandshake implements ChannelHandler, Handshake {
  readonly role = 'client';
  readonly #plane: Plane;
  readonly #pod: Pod;
  readonly #options: HandshakeOptions;
  #channel: ChannelId = 0;
  #deadline: Deadline | null = null;
  #over = false;

  constructor(plane: Plane, pod: Pod, options: HandshakeOptions) {
    this.#plane = plane;
    this.#pod = pod;
    this.#options = options;
  }

  /** Takes over a channel; this is its handler. */
  start(channel: ChannelId): void {
    const { deadlines, identities, metrics } = this.#plane;
    this.#channel = channel;
    this.#pod.handshakes.add(this);
    this.#deadline = deadlines.handshake.set(() => {
      metrics.add(metrics.slot(TUNNEL_TIMEOUTS, 'client', 'tls-handshake'), 1);
      this.#fail(new CulvertError('TLS', 'tls handshake error: the peer took too long'));
    });
    const context = identities.context(this.#options.source, (later) => this.#secure(later));
    if (context !== null) this.#secure(context);
  }

  secured(): void {
    this.#end();
    const { loop, pool, metrics, deadlines } = this.#plane;
    const options = this.#options;
    const connection: Http2Connection = tunnelOnChannel(loop, this.#channel, this.#plane.http2('client'), {
      request: () => {
        // Unreachable: the connection refuses requests in the client role.
        throw new CulvertError('INTERNAL', 'request on a client connection');
      },
      goingAway: () => pool.retired(connection),
      streamClosed: () => options.streamClosed(connection),
      closed: (error) => {
        pool.closed(connection);
        if (error !== null) this.#brokenBy(error);
      },
    });
    metrics.add(metrics.slot(TUNNEL_HANDSHAKES, 'client', 'ok'), 1);
    expectSettings(connection, deadlines.settings);
    options.opened(connection, loop.peer(this.#channel)?.identity ?? '');
  }

  /** Nobody wants the tunnel any more. */
  cancel(): void {
    this.#fail(new CulvertError('CANCELLED', 'nobody waits for the tunnel any more'));
  }

  abandon(): void {
    this.#fail(new CulvertError('POOL_DRAINING', 'pool draining'));
  }

  failed(error: ChannelError): void {
    this.#fail(new CulvertError(error.code, handshakeMessage(error), { cause: error }));
  }

  ended(): void {
    this.#fail(new CulvertError('TLS', 'tls handshake error: the peer closed the connection during the handshake'));
  }

  data(): number {
    return 0;
  }

  connected(): void {}
  drained(): void {}
  closed(): void {}

  #secure(context: number | CulvertError): void {
    if (this.#over) return;
    if (typeof context !== 'number') {
      this.#fail(context);
      return;
    }
    try {
      this.#plane.loop.startTls(this.#channel, context, 'client', this.#options.expected, '', this.#options.logSecrets);
    } catch (error) {
      this.#fail(error as CulvertError);
    }
  }

  #brokenBy(error: Http2Error): void {
    this.#plane.log.warn('proxy', 'a tunnel ended because its peer broke HTTP/2', {
      pod: this.#pod.info.uid,
      peer: this.#options.peer,
      error: error.message,
    });
  }

  #fail(error: CulvertError): void {
    if (this.#over) return;
    const { loop } = this.#plane;
    this.#end();
    // Of a handshake that has failed nothing is worth waiting until its peer, or a stream around it, has room for it.
    if (!loop.close(this.#channel)) loop.reset(this.#channel);
    countFailed(this.#plane, error);
    this.#options.failed(error);
  }

  #end(): void {
    this.#over = true;
    this.#deadline?.clear();
    this.#pod.handshakes.delete(this);
  }
}

/** A tunnel that was not opened. */
export function countFailed({ metrics }: Plane, error: CulvertError): void {
  metrics.add(metrics.slot(TUNNEL_HANDSHAKES, 'client', error.code), 1);
  if (error.code === 'CERT_REVOKED') metrics.add(metrics.slot(CRL_REJECTIONS, 'source'), 1);
}

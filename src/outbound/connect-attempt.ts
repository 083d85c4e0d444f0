import type { Deadline } from '../deadlines.ts';
import { type CulvertError, messageOf } from '../errors.ts';
import type { Plane } from '../filters/plane.ts';
import { broken, close, type Refusal } from '../filters/verdict.ts';
import type { Http2Connection } from '../hbone/connection.ts';
import type { HeaderField } from '../hbone/hpack.ts';
import { ErrorCode } from '../hbone/http-error.ts';
import type { TunnelRequest } from '../hbone/pool.ts';
import type { Http2Stream, StreamHandler, StreamReset } from '../hbone/stream.ts';
import { TUNNEL_TIMEOUTS } from '../metrics/families.ts';
import type { ResponseFlag } from '../metrics/traffic-labels.ts';

/**
 * Where an attempt gets its tunnel: calls `tunnel`, `noTunnel` or `refuse` of the attempt, once. Returns what it has under
 * way for this attempt alone; null for nothing.
 */
export type TunnelSource = (attempt: ConnectAttempt) => UnderWay | null;

/** What is on the way to an endpoint. */
export interface UnderWay {
  /** The endpoint has given no sign of itself, by `now`, for the time that an attempt may take. */
  isSilentAt(now: number): boolean;
  /** The endpoint is given up as silent. */
  lapse(): void;
  /** Nobody wants it any more. */
  cancel(): void;
}

/** One of them is called, once. */
export interface AttemptEvents {
  /** The peer said 200: the stream needs its handler within the call. `headers` are the answer's regular fields. */
  accepted(stream: Http2Stream, headers: readonly HeaderField[]): void;
  refused(refusal: Refusal, fault: Fault): void;
}

/**
 * Whose fault it is that there is no connection. endpoint: it cannot be reached. beyond: it can, but could not serve the
 * request; another one may. none: another endpoint would be no better.
 */
export type Fault = 'endpoint' | 'beyond' | 'none';

/**
 * A CONNECT request on its way: to a tunnel, and to the peer's answer. Nothing of the application is sent before that, so
 * nothing is lost when the request has to be sent again in another tunnel.
 *
 * A tunnel that was there already may be one whose peer is gone. When nothing at all is heard of it, not even the answer to
 * a PING, another one is opened meanwhile: if that succeeds first, the request moves there.
 */
export class ConnectAttempt implements TunnelRequest, StreamHandler, UnderWay {
  readonly #plane: Plane;
  readonly #source: TunnelSource;
  readonly #fields: readonly HeaderField[];
  readonly #events: AttemptEvents;
  /** While the source is being asked: a tunnel that it gives meanwhile was there before. */
  #isAsking = false;
  /** What the source has under way. */
  #tunnel: UnderWay | null = null;
  #connection: Http2Connection | null = null;
  #stream: Http2Stream | null = null;
  #deadline: Deadline | null = null;
  /** Looks whether anything is heard of the tunnel's peer. */
  #look: Deadline | null = null;
  /** When the peer was last asked for a sign of itself; null when it has not been since the request was sent. */
  #askedAt: number | null = null;
  /** Whether the tunnel that is under way is to replace one that is silent. */
  #isReplacing = false;
  #refusals = 0;
  #losses = 0;
  /** When the request was sent; null while it is not, or not any more. */
  #sentAt: number | null = null;
  isOver = false;

  constructor(plane: Plane, source: TunnelSource, fields: readonly HeaderField[], events: AttemptEvents) {
    this.#plane = plane;
    this.#source = source;
    this.#fields = fields;
    this.#events = events;
  }

  start(): void {
    this.#askForTunnel();
  }

  /** The request has been sent; what is left is the peer's answer. */
  get isSent(): boolean {
    return this.#sentAt !== null;
  }

  /** There is no tunnel yet, or nothing is heard of the one that the request was sent in, though a sign was asked for. */
  isSilentAt(now: number): boolean {
    if (this.#sentAt === null) return this.#tunnel?.isSilentAt(now) ?? true;
    if (this.#connection === null || this.#askedAt === null) return false;
    const { attemptTimeout } = this.#plane.settings;
    const { heardAt } = this.#connection;
    return heardAt <= this.#askedAt && now - this.#askedAt >= attemptTimeout / 4 && now - heardAt >= attemptTimeout;
  }

  /** A tunnel that is silent gets no more requests. */
  lapse(): void {
    if (this.#sentAt === null) this.#tunnel?.lapse();
    else if (this.#connection !== null) this.#plane.pool.retire(this.#connection);
    this.cancel();
  }

  cancel(): void {
    this.#end();
    this.#tunnel?.cancel();
    this.#stream?.reset(ErrorCode.CANCEL);
    this.#stream = null;
  }

  tunnel(connection: Http2Connection): void {
    if (this.isOver) return;
    if (this.#isReplacing && !this.#abandonSilent()) return;
    this.#connection = connection;
    const stream = this.#open(connection);
    // Sending can be what shows that the tunnel is broken.
    if (this.isOver || this.#connection !== connection) return;
    if (stream === null) {
      // It filled up or went away between the pool's look and now.
      this.#askForTunnel();
      return;
    }
    this.#stream = stream;
    this.#sentAt = this.#plane.now();
    const { deadlines } = this.#plane;
    this.#deadline = deadlines.response.set((now) => this.#unanswered(connection, now));
    this.#watch(connection, this.#isAsking);
  }

  /** Sends the request; null when that could not be done. */
  #open(connection: Http2Connection): Http2Stream | null {
    try {
      return connection.open(this.#fields, this);
    } catch (error) {
      // What the mesh state says of the workload or its service has no room in a request, in no tunnel. The others have.
      this.refuse(close('tunnel-failed', messageOf(error), 503, 'CONNECT'), 'none');
      return null;
    }
  }

  noTunnel(error: CulvertError): void {
    if (this.isOver) return;
    const fault = faultOf(error);
    const connection = this.#connection;
    if (this.#isReplacing && connection !== null && fault === 'none') {
      // That says nothing about the peer, which may still answer in the tunnel that there is; or what is missing comes back.
      this.#isReplacing = false;
      this.#watch(connection, true);
      return;
    }
    if (this.#isReplacing && !this.#abandonSilent()) return;
    this.refuse(close('tunnel-failed', error.message, 503, flagOf(error)), fault);
  }

  refuse(refusal: Refusal, fault: Fault): void {
    if (this.isOver) return;
    this.#end();
    this.#stream = null;
    this.#events.refused(refusal, fault);
  }

  streamResponse(status: number, headers: readonly HeaderField[]): void {
    const stream = this.#stream;
    if (stream === null) return;
    this.#look?.clear();
    if (status !== 200) {
      stream.reset(ErrorCode.CANCEL);
      const message = `http status: ${status} ${STATUS_TEXTS[status] ?? ''}`.trim();
      // A policy's verdict is final: to ask elsewhere would be to look for a gap in it.
      this.refuse(close('refused-by-peer', message), status >= 500 ? 'beyond' : 'none');
    } else {
      this.#end();
      this.#stream = null;
      this.#events.accepted(stream, headers);
    }
  }

  streamReset(reset: StreamReset): void {
    if (this.isOver) return;
    const lost = this.#connection?.isClosed === true && reset.code === ErrorCode.CONNECT_ERROR;
    this.#forgetStream();
    if (reset.unprocessed ? this.#refusals++ < MAX_REFUSALS : lost && this.#losses++ < MAX_LOSSES) {
      if (!this.#isReplacing) this.#askForTunnel();
      return;
    }
    this.refuse(broken('tunnel-lost', `h2 failed: ${reset.detail}`, 'H2_HANDSHAKE_FAILURE'), 'endpoint');
  }

  // Another handler takes over with the response, before which there is neither.
  streamData(): void {}
  streamEnded(): void {}

  streamWritable(): void {}

  #askForTunnel(): void {
    this.#isAsking = true;
    this.#tunnel = this.#source(this);
    this.#isAsking = false;
  }

  /**
   * Asks the peer for a sign of itself every now and then: what was heard of it may have been on its way when it vanished. A
   * tunnel that was there before is replaced when it is silent; one that was opened for the request was answered just now.
   */
  #watch(connection: Http2Connection, wasThere: boolean): void {
    this.#look = this.#plane.deadlines.silence.set((now) => {
      if (wasThere && this.isSilentAt(now)) {
        this.#isReplacing = true;
        // The request in it is not taken back: the answer may still come first. Another old one that is silent would prove nothing.
        this.#plane.pool.retireSilent(connection, now - this.#plane.settings.attemptTimeout);
        this.#askForTunnel();
        return;
      }
      if (this.#askedAt === null || connection.heardAt > this.#askedAt) {
        this.#askedAt = this.#plane.now();
        connection.probe();
      }
      this.#watch(connection, wasThere);
    });
  }

  /**
   * The replacement is there; false when it is not needed any more, because the peer was heard of: it may be at work on the
   * request. Else its tunnel has died with what was sent in it, as another one to the same place could be opened.
   */
  #abandonSilent(): boolean {
    this.#isReplacing = false;
    if (this.#connection === null) return true;
    if (!this.isSilentAt(this.#plane.now())) {
      this.#watch(this.#connection, true);
      return false;
    }
    const { metrics } = this.#plane;
    metrics.add(metrics.slot(TUNNEL_TIMEOUTS, 'client', 'silent-tunnel'), 1);
    const stream = this.#stream;
    this.#forgetStream();
    stream?.reset(ErrorCode.CANCEL);
    return true;
  }

  #forgetStream(): void {
    this.#connection = null;
    this.#stream = null;
    this.#deadline?.clear();
    this.#look?.clear();
    this.#askedAt = null;
    this.#sentAt = null;
  }

  #unanswered(connection: Http2Connection, now: number): void {
    const { metrics, pool, settings } = this.#plane;
    metrics.add(metrics.slot(TUNNEL_TIMEOUTS, 'client', 'connect-response'), 1);
    this.#stream?.reset(ErrorCode.CANCEL);
    // Not even a PING was answered, or nothing was heard at all: the next request tries a new tunnel.
    const isSilent = this.isSilentAt(now) || now - connection.heardAt >= settings.responseTimeout;
    if (isSilent) pool.retire(connection);
    this.refuse(UNANSWERED, isSilent ? 'endpoint' : 'beyond');
  }

  #end(): void {
    this.isOver = true;
    this.#deadline?.clear();
    this.#look?.clear();
  }
}

export const UNANSWERED = close('no-response', 'the peer did not answer the CONNECT request in time');

/** The peer says that it did not act on the request (RFC 9113 §8.7). Every thread of a leaving agent may say so once. */
const MAX_REFUSALS = 8;

/**
 * The tunnel broke before the answer: its peer may have been gone for a while. The peer may also have got the request and
 * connected to its application; that connection carries nothing and ends with the tunnel.
 */
const MAX_LOSSES = 1;

const STATUS_TEXTS: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** For a connection or tunnel that could not be opened. */
export function faultOf({ code }: { readonly code: string }): Fault {
  return OWN_FAULTS.has(code) ? 'none' : 'endpoint';
}

/** No other endpoint would fare better: what is missing is missing here. */
const OWN_FAULTS: ReadonlySet<string> = new Set([
  'NO_CERTIFICATE',
  'POOL_DRAINING',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'ENOBUFS',
  'EADDRNOTAVAIL',
]);

/** `response_flags` for a tunnel that could not be opened (spec §12.2). */
function flagOf(error: CulvertError): ResponseFlag {
  if (error.code === 'ETIMEDOUT') return 'NETWORK_POLICY';
  if (error.code === 'NO_CERTIFICATE') return 'IDENTITY_ERROR';
  if (error.code === 'CERT_REVOKED') return 'CERT_REVOKED';
  if (error.code !== 'TLS') return 'CONNECT';
  return error.message.includes('identity verification error') ? 'IDENTITY_ERROR' : 'TLS_FAILURE';
}

/**
 * The one port of the control plane: gRPC over TLS and HTTP/2, for whatever services it is given (node-09 §9.1).
 *
 * It is made of node:http2 and not of the stock library for gRPC, for what `grpc/call.ts` says at its top.
 */
import type { Http2SecureServer, ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { SecureContextOptions, TLSSocket } from 'node:tls';
import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { type EndCall, type Methods, methodsOf, serveCall } from './grpc/call.ts';
import type { GrpcService, Peer } from './grpc/service.ts';
import { createLineQuota, type LineQuota } from './line-quota.ts';

export interface ControlServerOptions {
  /** Address to listen on; '::' for all. */
  readonly host: string;
  /** 0 for any that is free. */
  readonly port: number;
  readonly certificate: ServingCertificate;
  readonly services: readonly GrpcService[];
  readonly limits?: Partial<ConnectionLimits>;
  readonly log: Logger;
}

export interface ServingCertificate {
  /** The certificate and its intermediates, PEM. */
  readonly chainPem: string;
  readonly keyPem: string;
  /** What certificates of clients are verified against, PEM. */
  readonly clientRootsPem: string;
}

/** Times in ms. */
export interface ConnectionLimits {
  /** How old a connection may become before its client is asked to come again, so that replicas share them evenly. */
  readonly maxAgeMs: number;
  /** How long a client that was asked to go may take. */
  readonly graceMs: number;
  /** How long a connection may be without any call. */
  readonly maxIdleMs: number;
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  readonly maxConnections: number;
  readonly maxStreamsPerConnection: number;
}

export interface ControlServer {
  readonly port: number;
  connections(): number;
  /** For connections from now on. @throws CulvertError CERTIFICATE_UNUSABLE; the one before stays in force */
  replaceCertificate(certificate: ServingCertificate): void;
  /**
   * Takes no more connections and asks clients to go, one after the other, so that other replicas are not stormed.
   * Resolves when all have gone, or else after `withinMs`, when the rest is cut off.
   */
  drain(withinMs: number): Promise<void>;
  /** Cuts off everything at once. */
  close(): void;
}

/** @throws CulvertError CERTIFICATE_UNUSABLE or LISTEN_FAILED */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const { host, port, services, log } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const methods = methodsOf(services);
  const sessions = new Set<Session>();
  let isDraining = false;

  const server = process.getBuiltinModule('node:http2').createSecureServer({
    ...contextOptions(options.certificate),
    // A client that gives a certificate is held to it, see `admit`.
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    settings: { maxConcurrentStreams: limits.maxStreamsPerConnection, enablePush: false },
  });
  server.maxConnections = limits.maxConnections;
  const strangers = createLineQuota(LINES_PER_SECOND);
  server.on('drop', (connection) => {
    if (strangers.take() === null) return;
    log.warn('control::server', 'a connection was refused because there are too many', {
      peer: `${connection?.remoteAddress}:${connection?.remotePort}`,
      max: limits.maxConnections,
    });
  });
  server.on('tlsClientError', (error, socket: TLSSocket) => {
    log.debug('control::server', 'a TLS handshake failed', { peer: addressOf(socket), error: messageOf(error) });
  });
  server.on('session', (session) => {
    const peer = admit(session, log, strangers);
    if (peer === null) return;
    const held = new Session(session, limits, methods, peer, log);
    sessions.add(held);
    session.on('close', () => {
      sessions.delete(held);
      held.closed();
      if (isDraining && sessions.size === 0) empty.resolve();
    });
    if (isDraining) held.askToGo();
  });
  const empty = Promise.withResolvers<void>();
  const bound = await listen(server, host, port);

  function close(): void {
    stopListening();
    for (const session of sessions) session.cut();
  }

  return {
    port: bound,
    connections: () => sessions.size,
    replaceCertificate(certificate) {
      server.setSecureContext(contextOptions(certificate));
    },
    async drain(withinMs) {
      isDraining = true;
      stopListening();
      if (sessions.size === 0) return;
      const all = [...sessions];
      const spread = withinMs / 2 / all.length;
      // Who is asked last has still heard the last words when the time is up.
      const graceMs = Math.max(0, Math.min(limits.graceMs, withinMs / 2 - 2 * LAST_WORDS_MS));
      const timers = all.map((session, index) => setTimeout(() => session.askToGo(graceMs), index * spread));
      const deadline = setTimeout(empty.resolve, withinMs);
      await empty.promise;
      for (const timer of [...timers, deadline]) clearTimeout(timer);
      close();
    },
    close,
  };

  /** The method of the HTTP/2 server would ask all clients to go in the same moment. */
  function stopListening(): void {
    process.getBuiltinModule('node:tls').Server.prototype.close.call(server);
  }
}

/** A connection: asked to go when it is old or idle, cut when its other end is dead. */
class Session {
  readonly #session: ServerHttp2Session;
  readonly #limits: ConnectionLimits;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #longCalls = new Set<EndCall>();
  #streams = 0;
  #idle: NodeJS.Timeout | null = null;
  #isAsked = false;

  constructor(session: ServerHttp2Session, limits: ConnectionLimits, methods: Methods, peer: Peer, log: Logger) {
    this.#session = session;
    this.#limits = limits;
    session.on('error', (error) => {
      log.debug('control::server', 'a connection failed', { peer: peer.address, error: messageOf(error) });
    });
    session.on('stream', (stream, headers) => {
      this.#streams++;
      this.#becomeBusy();
      const end = serveCall(stream, headers, { methods, peer, log });
      if (end !== null) this.#longCalls.add(end);
      stream.on('close', () => {
        if (end !== null) this.#longCalls.delete(end);
        if (--this.#streams === 0) this.#becomeIdle(limits.maxIdleMs);
      });
    });
    // Replicas that started together must not lose all their clients together.
    const ageMs = limits.maxAgeMs * (1 + AGE_JITTER * (2 * Math.random() - 1));
    this.#after(Math.min(ageMs, MAX_TIMER_MS), () => this.askToGo());
    this.#keepAlive();
    this.#becomeIdle(Math.min(limits.maxIdleMs, FIRST_CALL_MS));
  }

  /**
   * GOAWAY: calls go on, the client makes new ones elsewhere. What is still there after the grace is ended in words that
   * clients know, and then cut off.
   */
  askToGo(graceMs = this.#limits.graceMs): void {
    if (this.#isAsked || this.#session.destroyed) return;
    this.#isAsked = true;
    this.#session.close();
    this.#after(graceMs, () => {
      for (const end of this.#longCalls) end('UNAVAILABLE', 'transport is closing');
      this.#after(LAST_WORDS_MS, () => this.cut());
    });
  }

  cut(): void {
    this.#session.destroy();
  }

  closed(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#becomeBusy();
  }

  #becomeIdle(patienceMs: number): void {
    if (this.#session.destroyed) return;
    this.#idle = setTimeout(() => this.askToGo(), patienceMs);
  }

  #becomeBusy(): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
  }

  /** The answer to a ping may lie behind megabytes that are on their way: a client is alive if anything comes from it. */
  #keepAlive(): void {
    this.#after(this.#limits.pingIntervalMs, () => {
      if (this.#session.destroyed) return;
      const received = this.#session.socket.bytesRead;
      this.#session.ping(() => {});
      this.#after(this.#limits.pingTimeoutMs, () => {
        // A thread that stood still has its timers before what came meanwhile: all clients would be cut off together.
        setImmediate(() => {
          if (this.#session.destroyed) return;
          if (this.#session.socket.bytesRead === received) this.cut();
          else this.#keepAlive();
        });
      });
    });
  }

  #after(ms: number, act: () => void): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }
}

/** Who is at the other end; null, and the connection is over, when it gave a certificate that cannot be verified. */
function admit(session: ServerHttp2Session, log: Logger, lines: LineQuota): Peer | null {
  const socket = session.socket as TLSSocket;
  const address = addressOf(socket);
  const certificate = socket.getPeerX509Certificate() ?? null;
  if (certificate === null || socket.authorized) return { address, certificate };
  if (lines.take() !== null) {
    log.warn('control::server', 'a connection was refused: the certificate of the client cannot be verified', {
      peer: address,
      error: String(socket.authorizationError),
    });
  }
  session.on('error', () => {});
  session.destroy();
  return null;
}

/** @throws CulvertError CERTIFICATE_UNUSABLE */
function contextOptions({ chainPem, keyPem, clientRootsPem }: ServingCertificate): SecureContextOptions {
  const { createSecureContext } = process.getBuiltinModule('node:tls');
  const { SSL_OP_NO_TICKET } = process.getBuiltinModule('node:crypto').constants;
  const options: SecureContextOptions = {
    cert: chainPem,
    key: keyPem,
    ca: clientRootsPem,
    minVersion: 'TLSv1.2',
    // A resumed session would not be verified against the roots that are in force by then.
    secureOptions: SSL_OP_NO_TICKET,
  };
  try {
    createSecureContext(options);
  } catch (error) {
    // The library's messages name what is wrong with the PEM, never a key.
    throw new CulvertError('CERTIFICATE_UNUSABLE', `the serving certificate cannot be used: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return options;
}

function listen(server: Http2SecureServer, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const place = `${host}:${port}`;
      reject(new CulvertError('LISTEN_FAILED', `cannot listen on ${place}: ${messageOf(error)}`, { cause: error }));
    });
    server.listen(port, host, () => {
      server.removeAllListeners('error');
      server.on('error', () => {});
      resolve((server.address() as AddressInfo).port);
    });
  });
}

function addressOf({ remoteAddress = '', remotePort = 0 }: TLSSocket): string {
  const ip = remoteAddress.replace(/^::ffff:/, '');
  return ip.includes(':') ? `[${ip}]:${remotePort}` : `${ip}:${remotePort}`;
}

const DEFAULT_LIMITS: ConnectionLimits = {
  // As istiod has them: half an hour, ten seconds; pings of gRPC's defaults there.
  maxAgeMs: 1_800_000,
  graceMs: 10_000,
  maxIdleMs: 300_000,
  pingIntervalMs: 30_000,
  pingTimeoutMs: 10_000,
  maxConnections: 20_000,
  maxStreamsPerConnection: 100,
};
const AGE_JITTER = 0.1;
/** A longer timer of Node's would fire at once. */
const MAX_TIMER_MS = 0x7fff_ffff;
const LAST_WORDS_MS = 1000;
/** Nobody connects without a reason. */
const FIRST_CALL_MS = 30_000;
/** Of what strangers have written to the log. */
const LINES_PER_SECOND = 10;
const HANDSHAKE_TIMEOUT_MS = 10_000;

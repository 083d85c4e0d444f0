/**
 * What the agent's three HTTP servers have in common (spec §14): HTTP/1.1 without TLS, small limits, plain replies,
 * large bodies in pieces, and an end that lets running requests finish.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { canonicalIp, formatSocketAddress, type SocketAddress } from '../netns/address.ts';
import { chooseEncoding, createEncoder } from './compression.ts';

export interface HttpService {
  /** Where it listens, with the port that was given for 0. */
  readonly addresses: readonly SocketAddress[];
  /** Takes no more connections and waits for running requests, for `graceMs` (default 5000) at most. */
  close(graceMs?: number): Promise<void>;
}

export interface HttpServiceOptions {
  /** Target in the log: `admin`, `metrics`, `readiness` */
  readonly name: string;
  /** At least one. Port 0 takes a free one, the same for all. Families that the kernel lacks are left out. */
  readonly addresses: readonly SocketAddress[];
  readonly handle: Handler;
  readonly log: Pick<Logger, 'warn'>;
}

/** What it throws becomes a 500 with the error's text. */
export type Handler = (request: Request) => Reply | Promise<Reply>;

export interface Request {
  readonly method: string;
  /** Path and query; the host part means nothing. */
  readonly url: URL;
  readonly headers: IncomingMessage['headers'];
  /** Canonical; null when the peer is gone. */
  readonly remoteIp: string | null;
}

export interface Reply {
  readonly status: number;
  /** Default `text/plain; charset=utf-8` */
  readonly contentType?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Pieces are made as the client takes them, one per turn of the loop. */
  readonly body: string | Iterable<string>;
  /** Whether to compress the body as the client accepts. */
  readonly compress?: boolean;
  /** Runs when the reply was sent or the client is gone. */
  readonly sent?: () => void;
}

/** Time a client has for the headers of a request; looked at every second. */
const HEADERS_TIMEOUT_MS = 2000;
const CHECK_INTERVAL_MS = 1000;
/** Nobody sends a body worth waiting for. */
const REQUEST_TIMEOUT_MS = 5000;
/** Longer than the usual scrape interval, so that a scraper keeps its connection. */
const KEEP_ALIVE_TIMEOUT_MS = 20_000;
/** A client that takes nothing of its reply for this long is cut off. */
const STALL_TIMEOUT_MS = 30_000;
const MAX_HEADER_BYTES = 8192;
/** Bounds what strangers can occupy; probes and scrapers need a handful. */
const MAX_CONNECTIONS = 256;
const CLOSE_GRACE_MS = 5000;

/** @throws CulvertError HTTP_BIND_FAILED */
export async function serveHttp(options: HttpServiceOptions): Promise<HttpService> {
  const servers: Server[] = [];
  const addresses: SocketAddress[] = [];
  const closeAll = async (graceMs: number) => {
    await Promise.all(servers.map((server) => closeServer(server, graceMs)));
  };
  try {
    for (const { ip, port } of options.addresses) {
      const wanted = { ip, port: port === 0 ? (addresses[0]?.port ?? 0) : port };
      const server = createServer(options);
      const bound = await bind(server, options.name, wanted, servers.length > 0);
      if (bound === null) continue;
      servers.push(server);
      addresses.push(bound);
    }
  } catch (error) {
    await closeAll(0);
    throw error;
  }
  return { addresses, close: (graceMs = CLOSE_GRACE_MS) => closeAll(graceMs) };
}

/**
 * Listens, and on `0.0.0.0` instead of `::` where there is no IPv6. Null when the kernel lacks the family and
 * `optional` is true.
 */
async function bind(
  server: Server,
  name: string,
  { ip, port }: SocketAddress,
  optional: boolean,
): Promise<SocketAddress | null> {
  try {
    return await listen(server, ip, port);
  } catch (error) {
    if (isFamilyMissing(error)) {
      if (optional) return null;
      if (ip === '::') return await bind(server, name, { ip: '0.0.0.0', port }, false);
    }
    const address = formatSocketAddress({ ip, port });
    const hint =
      (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
        ? ` (something listens there already, perhaps another agent; the port for ${name} is a setting: docs/configuration.md)`
        : '';
    throw new CulvertError('HTTP_BIND_FAILED', `failed to bind to address ${address}: ${messageOf(error)}${hint}`, {
      cause: error,
    });
  }
}

function isFamilyMissing(error: unknown): boolean {
  return ['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes((error as NodeJS.ErrnoException).code ?? '');
}

function listen(server: Server, ip: string, port: number): Promise<SocketAddress> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: ip, port }, () => {
      server.off('error', reject);
      resolve({ ip, port: (server.address() as AddressInfo).port });
    });
  });
}

function closeServer(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), graceMs);
    server.close(() => {
      clearTimeout(cut);
      resolve();
    });
  });
}

function createServer({ name, handle, log }: HttpServiceOptions): Server {
  // Not imported: an ES import of node:http reads all of its properties, which loads Node's fetch as well, 12 MB resident.
  const { createServer } = process.getBuiltinModule('node:http');
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
    },
    async (incoming, response) => {
      incoming.resume();
      try {
        await send(await replyTo(incoming, handle), incoming, response);
      } catch (error) {
        // The reply had begun; all that is left is to break it off, so that the client does not take it for whole.
        if (!isClientGone(error)) log.warn(name, 'reply broken off', { path: incoming.url, error: error as Error });
        response.destroy();
      }
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.setTimeout(STALL_TIMEOUT_MS);
  return server;
}

async function replyTo(incoming: IncomingMessage, handle: Handler): Promise<Reply> {
  const url = URL.parse(incoming.url ?? '', 'http://agent');
  if (url === null) return NOT_FOUND;
  const { method = 'GET', headers, socket } = incoming;
  try {
    return await handle({ method, url, headers, remoteIp: canonicalIp(socket.remoteAddress ?? '') });
  } catch (error) {
    return { status: 500, body: `${messageOf(error)}\n` };
  }
}

export const NOT_FOUND: Reply = { status: 404, body: '' };

/** @param allowed the methods the path has; @param usage how it is used, if that needs saying */
export function methodNotAllowed(allowed: readonly string[], usage = ''): Reply {
  return { status: 405, headers: { allow: allowed.join(', ') }, body: usage };
}

async function send(reply: Reply, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  if (reply.sent !== undefined) response.once('close', reply.sent);
  response.statusCode = reply.status;
  response.setHeader('content-type', reply.contentType ?? 'text/plain; charset=utf-8');
  for (const [name, value] of Object.entries(reply.headers ?? {})) response.setHeader(name, value);
  if (typeof reply.body === 'string' && !reply.compress) {
    response.end(reply.body);
    return;
  }
  const pieces = typeof reply.body === 'string' ? [reply.body] : reply.body;
  const encoding = reply.compress ? chooseEncoding(incoming.headers['accept-encoding'] ?? '') : null;
  if (reply.compress) response.setHeader('vary', 'accept-encoding');
  if (encoding === null) {
    await pipeline(onePerTurn(pieces), response);
  } else {
    response.setHeader('content-encoding', encoding);
    await pipeline(onePerTurn(pieces), createEncoder(encoding), response);
  }
}

/** Lets other work through between the pieces of a large body. */
async function* onePerTurn(pieces: Iterable<string>): AsyncGenerator<string> {
  for (const piece of pieces) {
    yield piece;
    await turn();
  }
}

function isClientGone(error: unknown): boolean {
  return ['ERR_STREAM_PREMATURE_CLOSE', 'ECONNRESET', 'EPIPE'].includes((error as NodeJS.ErrnoException).code ?? '');
}

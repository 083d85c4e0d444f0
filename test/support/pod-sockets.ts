/**
 * What applications in pods do with TCP: sockets of node:net whose descriptors were made inside a pod's namespace. To the
 * capture rules and the agent they are like those of any program in the pod.
 */
import { once } from 'node:events';
import { createServer, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectTcp, listenTcp } from '../../native/netns.ts';
import { canonicalIp } from '../../src/netns/address.ts';
import { PATIENCE_MS } from './patience.ts';
import type { Pod } from './pods.ts';
import { plainListener, unmarked } from './tcp.ts';

/** One end of a connection. Nothing is read before it is asked for, so that an end can stall as applications do. */
export interface Talk {
  readonly socket: Socket;
  /** The other end as this one sees it; canonical. */
  readonly peer: { readonly ip: string; readonly port: number };
  readonly localPort: number;
  send(data: string | Uint8Array): void;
  /** FIN. */
  finish(): void;
  /** RST. */
  reset(): void;
  /** Exactly that many bytes. Rejects when the connection ends before, or after the patience. */
  read(length: number): Promise<Buffer>;
  text(length: number): Promise<string>;
  /** Everything up to the FIN. */
  rest(): Promise<Buffer>;
  /** Resolves when the other side ends: 'fin', or the code of what broke the connection. Discards what is unread. */
  outcome(): Promise<string>;
}

export interface PodServer {
  readonly port: number;
  /** The next connection. */
  accept(): Promise<Talk>;
  /** Connections that nobody took with `accept`. */
  waiting(): number;
  close(): void;
}

/** Whatever was opened here and is not closed yet. */
const open = new Set<{ end(): void }>();

/** Closes every connection and every server. */
export function closeConnections(): void {
  for (const each of [...open]) each.end();
}

/** Starts to connect. A failure shows when something is read, or in `outcome`. */
export function dial(pod: Pod, ip: string, port: number): Talk {
  const { fd } = connectTcp(pod.netns.fd, ip, port, null, unmarked);
  return talk(new Socket({ fd, allowHalfOpen: true }), { ip, port });
}

/** Listens on all addresses of a pod, or on one. Connections go to `serve`, or wait for `accept`. */
export async function listen(
  pod: Pod,
  port: number,
  { serve, ip = '::' }: { serve?: (connection: Talk) => void; ip?: string } = {},
): Promise<PodServer> {
  const { fd } = listenTcp(pod.netns.fd, ip, port, { ...plainListener, reusePort: false });
  const queue: Talk[] = [];
  const takers: ((connection: Talk) => void)[] = [];
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: false }, (socket) => {
    const peer = { ip: canonicalIp(socket.remoteAddress ?? '') ?? '', port: socket.remotePort ?? 0 };
    const connection = talk(socket, peer);
    const take = serve ?? takers.shift();
    if (take === undefined) queue.push(connection);
    else take(connection);
  });
  const entry = { end: () => server.close() };
  open.add(entry);
  server.on('close', () => open.delete(entry));
  server.listen({ fd });
  await once(server, 'listening');
  return {
    port,
    accept() {
      const waiting = queue.shift();
      if (waiting !== undefined) return Promise.resolve(waiting);
      return patiently(`no connection to port ${port} of ${pod.name}`, new Promise((resolve) => takers.push(resolve)));
    },
    waiting: () => queue.length,
    close() {
      server.close();
      for (const { socket } of queue) socket.destroy();
    },
  };
}

/** A server that sends everything back, and its FIN after the client's. */
export function listenEcho(pod: Pod, port: number): Promise<PodServer> {
  return listen(pod, port, { serve: ({ socket }) => socket.pipe(socket) });
}

/** A connection that is closed again, with what it said last. */
export async function exchange(connection: Talk, message: string): Promise<string> {
  connection.send(message);
  connection.finish();
  const answer = (await connection.rest()).toString();
  connection.socket.destroy();
  return answer;
}

/**
 * Waits until nothing listens there any more: threads close their listeners one after the other.
 *
 * @throws Error when something still does after the patience
 */
export async function refused(from: Pod, ip: string, port: number): Promise<void> {
  const until = performance.now() + PATIENCE_MS;
  let outcome = '';
  do {
    if (performance.now() > until) throw new Error(`port ${port} of ${ip} is still open: ${outcome}`);
    const connection = dial(from, ip, port);
    outcome = await Promise.race([connection.outcome(), sleep(500, 'connected')]);
    connection.socket.destroy();
  } while (outcome !== 'ECONNREFUSED');
}

/** How an attempt to talk ends: 'fin' or an errno's name. */
export async function fate(connection: Talk): Promise<string> {
  const outcome = await connection.outcome();
  connection.socket.destroy();
  return outcome;
}

/** @throws Error with the text when it takes too long */
export function patiently<T>(complaint: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  // Made now, so that its trace says who waits.
  const error = new Error(`${complaint} within ${PATIENCE_MS / 1000} s`);
  const timer = setTimeout(() => reject(error), PATIENCE_MS);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function talk(socket: Socket, peer: Talk['peer']): Talk {
  let broken: NodeJS.ErrnoException | null = null;
  const entry = { end: () => socket.destroy() };
  open.add(entry);
  socket.on('close', () => open.delete(entry));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    broken ??= error;
  });

  /** Calls `take` whenever there may be something to read, until it returns true. */
  function reading(what: string, take: () => boolean): Promise<void> {
    const done = Promise.withResolvers<void>();
    const look = () => {
      if (take()) done.resolve();
      else if (broken !== null) done.reject(broken);
      else if (socket.readableEnded) done.reject(new Error(`FIN instead of ${what}`));
      else if (socket.destroyed) done.reject(new Error(`closed instead of ${what}`));
    };
    const events = ['readable', 'end', 'error', 'close'] as const;
    for (const event of events) socket.on(event, look);
    look();
    return patiently(`did not get ${what}`, done.promise).finally(() => {
      for (const event of events) socket.off(event, look);
    });
  }

  const connection: Talk = {
    socket,
    peer,
    // While the socket is open, so that it can be asked for later.
    localPort: socket.localPort ?? 0,
    send: (data) => void socket.write(data),
    // Something to write is waited with until the connection is there; to shut down one that is not gives it up.
    finish: () => void (socket.writableEnded ? socket.end() : socket.end('')),
    reset: () => void socket.resetAndDestroy(),
    async read(length) {
      let bytes: Buffer | null = null;
      await reading(`${length} bytes`, () => {
        bytes = socket.read(length);
        return bytes !== null && bytes.length === length;
      });
      return bytes!;
    },
    text: async (length) => (await connection.read(length)).toString(),
    async rest() {
      const chunks: Buffer[] = [];
      await reading('the FIN', () => {
        for (let chunk = socket.read(); chunk !== null; chunk = socket.read()) chunks.push(chunk);
        return socket.readableEnded;
      });
      return Buffer.concat(chunks);
    },
    async outcome() {
      try {
        await connection.rest();
        return 'fin';
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === undefined) throw error;
        return code;
      }
    },
  };
  return connection;
}

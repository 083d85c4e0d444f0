/**
 * Channels: the connections of one thread, plain or TLS 1.3, as the addon carries them (loop.h). Hot path.
 *
 * Bytes never become JavaScript objects: the addon reads into `memory` and calls `data(offset, length)`; whoever handles
 * it says which part goes to which channel. What lies in `memory` is valid until that call returns; `write` and
 * `writeFrame` have taken what they were given by then.
 */
import { CulvertError } from '../src/errors.ts';
import {
  type Carrier,
  type ChannelHandler,
  type ChannelId,
  type ListenerHandler,
  NO_LIMIT,
  type Peer,
  type TcpInfo,
  type TlsMaterial,
} from './channel-handler.ts';
import { errnoError } from './errno.ts';
import { createNativeLoop, EventKind, type NativeLoop, REVOKED_ERROR, TLS_ERROR } from './native-loop.ts';

export * from './channel-handler.ts';

const INDEX_MASK = (1 << 20) - 1;

export class ChannelLoop {
  /** Scratch space for frames first (`scratchSize` bytes), then what channels read. */
  readonly memory: Uint8Array;
  readonly scratchSize: number;
  /** The most that one read brings. */
  readonly slabSize: number;
  readonly #native: NativeLoop;
  readonly #handlers: (ChannelHandler | undefined)[] = [];
  /** Whose handler stands at an index: an id that has been closed must not touch its successor's. */
  readonly #owners: ChannelId[] = [];
  readonly #carriers = new Map<ChannelId, Carrier>();
  readonly #listeners: (ListenerHandler | undefined)[] = [];

  /** A thread has one loop at a time. `onBug` gets what a handler threw; its channel is reset, the others go on. */
  constructor(onBug: (error: unknown) => void) {
    this.#native = createNativeLoop({
      data: (channel, offset, length) => {
        const handler = this.#handlers[channel & INDEX_MASK];
        if (handler === undefined) return 0;
        try {
          return handler.data(offset, length);
        } catch (error) {
          onBug(error);
          this.#broken(channel, handler, error);
          return 0;
        }
      },
      event: (channel, kind, argument) => {
        if (kind >= EventKind.OUTPUT) {
          try {
            this.#carrierEvent(channel, kind, argument);
          } catch (error) {
            onBug(error);
            this.#native.deliverReset(channel);
          }
          return;
        }
        const handler = this.#handlers[channel & INDEX_MASK];
        if (handler === undefined) return;
        try {
          this.#event(handler, channel, kind, argument);
        } catch (error) {
          onBug(error);
          this.#broken(channel, handler, error);
        }
      },
      accept: (listener, channel, peerIp, peerPort, destinationIp, destinationPort, original) => {
        if (channel > 0) this.#enter(channel, undefined);
        try {
          if (channel < 0) this.#listeners[listener]?.failed(errnoError(-channel, 'accept'), listener);
          else
            this.#listeners[listener]?.accepted({
              channel,
              peerIp,
              peerPort,
              destinationIp,
              destinationPort,
              original,
            });
        } catch (error) {
          onBug(error);
          const handler = channel > 0 ? this.#handlers[channel & INDEX_MASK] : undefined;
          if (handler !== undefined) this.#broken(channel, handler, error);
        }
        // Nobody took it.
        if (channel > 0 && this.#handlers[channel & INDEX_MASK] === undefined) this.reset(channel);
      },
    });
    this.memory = new Uint8Array(this.#native.memory);
    this.scratchSize = this.#native.scratchSize;
    this.slabSize = this.#native.slabSize;
  }

  /** Takes over a connected, non-blocking socket; paused. Throws when the kernel cannot watch it. */
  attach(fd: number, handler: ChannelHandler): ChannelId {
    const channel = this.#native.attach(fd, false);
    if (channel === 0) throw new CulvertError('EPOLL', `cannot watch descriptor ${fd}`);
    this.#enter(channel, handler);
    return channel;
  }

  /**
   * A channel without a socket, for TLS inside something else: whoever carries it calls `deliver` and `take`. Paused, and
   * useless until `startTls`.
   */
  openMemory(handler: ChannelHandler, carrier: Carrier): ChannelId {
    const channel = this.#native.attachMemory();
    if (channel === 0) throw new CulvertError('EMFILE', 'too many connections in this thread');
    this.#enter(channel, handler);
    this.#carriers.set(channel, carrier);
    return channel;
  }

  /** Bytes of `memory` have arrived for a memory channel; they are copied. */
  deliver(channel: ChannelId, offset: number, length: number): void {
    this.#native.deliver(channel, offset, length);
  }

  /** Nothing follows what was delivered (FIN). */
  deliverEnd(channel: ChannelId): void {
    this.#native.deliverEnd(channel);
  }

  /** What carries a memory channel has broken (RST). */
  deliverReset(channel: ChannelId): void {
    this.#native.deliverReset(channel);
  }

  /** Puts up to `room` bytes that a memory channel wants to send at `offset` of `memory`; returns how many. */
  take(channel: ChannelId, offset: number, room: number): number {
    return this.#native.take(channel, offset, room);
  }

  /** Gives an accepted channel (or one whose owner changes) its handler. */
  adopt(channel: ChannelId, handler: ChannelHandler): void {
    if (this.#owners[channel & INDEX_MASK] === channel) this.#handlers[channel & INDEX_MASK] = handler;
  }

  /**
   * Starts to connect from inside a namespace (-1: the own one), with the source address `source` when given
   * (IP_TRANSPARENT). `connected` or `failed` follows; an immediate failure is thrown as a ChannelError.
   */
  connect(netns: number, ip: string, port: number, source: string | null, handler: ChannelHandler): ChannelId {
    const channel = this.#native.connect(netns, ip, port, source);
    if (channel <= 0) throw errnoError(-channel, 'connect');
    this.#enter(channel, handler);
    return channel;
  }

  /** Queues bytes of `memory`. Returns the bytes that wait in the channel's queue so far, or -1 when it takes none (with TLS: before `secured` too). */
  write(channel: ChannelId, offset: number, length: number): number {
    return this.#native.write(channel, offset, length);
  }

  /** Queues an HTTP/2 DATA frame (RFC 9113 §6.1) whose payload lies in `memory`; the 9 bytes before it are overwritten. */
  writeFrame(channel: ChannelId, stream: number, flags: number, offset: number, length: number): number {
    return this.#native.writeFrame(channel, stream, flags, offset, length);
  }

  /** Sends what is queued now. Returns the bytes the kernel did not take; `drained` follows when there are any. */
  flush(channel: ChannelId): number {
    return this.#native.flush(channel);
  }

  /** Reads on, at most `limit` bytes at a time. */
  resume(channel: ChannelId, limit: number): void {
    this.#native.resume(channel, limit);
  }

  /**
   * Gives back the end of what `data` of a channel without TLS was just called with: the next read brings it again. It is
   * copied.
   */
  unread(channel: ChannelId, offset: number, length: number): void {
    this.#native.unread(channel, offset, length);
  }

  pause(channel: ChannelId): void {
    this.#native.resume(channel, 0);
  }

  /** Ends the own direction once what is queued is sent (FIN, with TLS close_notify first). */
  shutdown(channel: ChannelId): void {
    this.#native.shutdown(channel);
  }

  /**
   * Closes once what is queued is sent and, with TLS, the peer has ended as well: until then the kernel may have to send
   * again. A connect under way is given up. True when that is already done, otherwise `closed` follows, also when the
   * connection breaks meanwhile; `reset` ends the wait.
   */
  close(channel: ChannelId): boolean {
    const done = this.#native.close(channel);
    if (done) this.#leave(channel);
    return done;
  }

  /** Drops everything and sends a RST. */
  reset(channel: ChannelId): void {
    this.#native.reset(channel);
    this.#leave(channel);
  }

  /**
   * Starts TLS on a connected channel; `secured` or `failed` follows. As a client the server must present one of
   * `identities`; as a server the client must present a SPIFFE id of `trustDomain`. A peer whose certificate is revoked,
   * then or later, makes the channel fail with CERT_REVOKED. `logSecrets` counts if the context has a key log.
   */
  startTls(
    channel: ChannelId,
    context: number,
    role: 'client' | 'server',
    identities: readonly string[],
    trustDomain: string,
    logSecrets = true,
  ): void {
    const problem = this.#native.startTls(channel, context, role === 'server', identities, trustDomain, logSecrets);
    if (problem !== null) throw new CulvertError('TLS', problem);
    this.#native.resume(channel, NO_LIMIT);
  }

  peer(channel: ChannelId): Peer | null {
    return this.#native.peer(channel);
  }

  /** The port of this end of a connection; 0 when it has none. */
  localPort(channel: ChannelId): number {
    return this.#native.localPort(channel);
  }

  /**
   * Gives up a channel that was accepted and not used yet. Returns its descriptor, which the caller owns; -1 when it is
   * gone already.
   */
  detach(channel: ChannelId): number {
    const fd = this.#native.detach(channel);
    this.#leave(channel);
    return fd;
  }

  tcpInfo(channel: ChannelId): TcpInfo | null {
    return this.#native.tcpInfo(channel);
  }

  /** Accepts from a listening socket; `original` asks for the address the client dialled before REDIRECT. */
  listen(fd: number, original: boolean, handler: ListenerHandler): number {
    const listener = this.#native.listen(fd, original);
    if (listener < 0) throw errnoError(-listener, 'listen');
    this.#listeners[listener] = handler;
    return listener;
  }

  resumeListener(listener: number): void {
    this.#native.resumeListener(listener);
  }

  closeListener(listener: number): void {
    this.#native.closeListener(listener);
    this.#listeners[listener] = undefined;
  }

  /** Throws TLS_CONTEXT_INVALID naming what is wrong; key material never appears in it. */
  newTlsContext(material: TlsMaterial): number {
    const key = material.key.export({ type: 'pkcs8', format: 'der' });
    try {
      return this.#native.newTlsContext({ ...material, key });
    } finally {
      key.fill(0);
    }
  }

  /** Handshakes that use the context go on. */
  freeTlsContext(context: number): void {
    this.#native.freeTlsContext(context);
  }

  /**
   * Replaces the revocation lists (PEM or DER; empty for none): peers are compared with them from now on, and those that
   * are connected too. Until the first call no connection is remembered for that. Throws CRL_INVALID.
   */
  setRevocations(lists: Uint8Array): void {
    this.#native.setRevocations(lists);
  }

  /** Options of the sockets that `connect` makes. */
  setStreamOptions(options: {
    mark: number;
    keepalive: { time: number; interval: number; retries: number } | null;
    userTimeoutMs: number;
  }): void {
    const { mark, keepalive, userTimeoutMs } = options;
    this.#native.setStreamOptions(
      mark,
      keepalive !== null,
      keepalive?.time ?? 0,
      keepalive?.interval ?? 0,
      keepalive?.retries ?? 0,
      userTimeoutMs,
    );
  }

  /** Gives memory that was freed, by whatever thread, back to the system. */
  trim(): void {
    this.#native.trim();
  }

  /** Gives back the buffers that no channel has needed since the last call. */
  releaseBuffers(): void {
    this.#native.releaseBuffers();
  }

  /** Channels that are open. */
  get size(): number {
    return this.#native.count();
  }

  /** Closes every channel and listener without a word to their handlers. */
  stop(): void {
    this.#native.stop();
    this.#handlers.length = this.#owners.length = this.#listeners.length = 0;
    this.#carriers.clear();
  }

  #enter(channel: ChannelId, handler: ChannelHandler | undefined): void {
    this.#owners[channel & INDEX_MASK] = channel;
    this.#handlers[channel & INDEX_MASK] = handler;
  }

  #leave(channel: ChannelId): void {
    if (this.#owners[channel & INDEX_MASK] !== channel) return;
    this.#owners[channel & INDEX_MASK] = 0;
    this.#handlers[channel & INDEX_MASK] = undefined;
  }

  #carrierEvent(channel: ChannelId, kind: number, argument: number): void {
    const carrier = this.#carriers.get(channel);
    switch (kind) {
      case EventKind.OUTPUT:
        carrier?.output(argument);
        break;
      case EventKind.OUTPUT_END:
        carrier?.outputEnded();
        break;
      case EventKind.GONE:
        this.#carriers.delete(channel);
        carrier?.gone(argument === 1);
        break;
    }
  }

  #event(handler: ChannelHandler, channel: ChannelId, kind: number, argument: number): void {
    switch (kind) {
      case EventKind.CONNECTED:
        handler.connected();
        break;
      case EventKind.HANDSHAKE:
        handler.secured();
        break;
      case EventKind.END:
        handler.ended();
        break;
      case EventKind.DRAINED:
        handler.drained(argument);
        break;
      case EventKind.ERROR:
        handler.failed(
          argument === TLS_ERROR || argument === REVOKED_ERROR
            ? new CulvertError(argument === TLS_ERROR ? 'TLS' : 'CERT_REVOKED', this.#native.errorText(channel))
            : errnoError(argument, 'connection'),
        );
        break;
      case EventKind.CLOSED:
        this.#leave(channel);
        handler.closed();
        break;
    }
  }

  // A bug in a handler costs its own connection only.
  #broken(channel: ChannelId, handler: ChannelHandler, error: unknown): void {
    this.reset(channel);
    try {
      handler.failed(new CulvertError('INTERNAL', 'internal error', { cause: error }));
    } catch {
      // It has been reported; there is nothing left to close.
    }
  }
}

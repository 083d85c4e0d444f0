import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../native/channel.ts';
import type { Deadlines } from '../deadlines.ts';
import { Patience } from '../patience.ts';
import { Http2Connection, type Http2Events, type Http2Options, type Http2Transport } from './connection.ts';
import { ErrorCode } from './http-error.ts';

/** An HTTP/2 connection on an established TLS channel. */
export function tunnelOnChannel(
  loop: ChannelLoop,
  channel: ChannelId,
  options: Http2Options,
  events: Http2Events,
): Http2Connection {
  const tunnel = new TunnelChannel(loop, channel);
  loop.adopt(channel, tunnel);
  const connection = new Http2Connection(tunnel, options, events);
  tunnel.connection = connection;
  loop.resume(channel, NO_LIMIT);
  return connection;
}

/** Gives up on a peer that has done its TLS handshake and then does not speak HTTP/2. */
export function expectSettings(connection: Http2Connection, deadlines: Deadlines): void {
  deadlines.set(() => {
    if (connection.established) return;
    connection.abort(ErrorCode.SETTINGS_TIMEOUT, 'the peer sent no HTTP/2 settings in time', 'slow-preface');
  });
}

/** What ended a handshake, in the operator's words: a bare errno would not say that it was one. */
export function handshakeMessage(error: ChannelError): string {
  return error.message.startsWith('tls ') ? error.message : `tls handshake error: ${error.message}`;
}

/** How long a peer may take to read what is queued when its tunnel closes, and to close it too, in ms. */
const CLOSE_PATIENCE = 10_000;

class TunnelChannel implements Http2Transport, ChannelHandler {
  readonly memory: Uint8Array;
  readonly scratchSize: number;
  connection: Http2Connection | null = null;
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;
  #closing: Patience | null = null;

  constructor(loop: ChannelLoop, channel: ChannelId) {
    this.#loop = loop;
    this.#channel = channel;
    this.memory = loop.memory;
    this.scratchSize = loop.scratchSize;
  }

  write(offset: number, length: number): number {
    return this.#loop.write(this.#channel, offset, length);
  }

  writeData(streamId: number, flags: number, offset: number, length: number): number {
    return this.#loop.writeFrame(this.#channel, streamId, flags, offset, length);
  }

  flush(): number {
    return this.#loop.flush(this.#channel);
  }

  close(): void {
    if (this.#closing !== null || this.#loop.close(this.#channel)) return;
    // A thread that is done does not wait for it.
    this.#closing = new Patience(CLOSE_PATIENCE, () => this.#loop.reset(this.#channel)).unref();
  }

  closed(): void {
    this.#closing?.end();
  }

  data(offset: number, length: number): number {
    this.connection?.receive(offset, length);
    return NO_LIMIT;
  }

  drained(queued: number): void {
    this.connection?.drained(queued);
  }

  ended(): void {
    this.connection?.lost('the peer closed the tunnel');
    this.close();
  }

  failed(error: ChannelError): void {
    this.connection?.lost(error.message);
    this.#loop.close(this.#channel);
  }

  connected(): void {}
  secured(): void {}
}

/**
 * One side of the culvert contender: the data path of the agent, with everything decided beforehand.
 *
 *     node relay-peer.ts near|far <port to listen on> <port to connect to> <key> <chain> <roots> <own id> <peer's id>
 *
 * near: plain TCP → stream of a pooled HBONE tunnel. far: HBONE stream → plain TCP.
 */

import type { Accepted, ChannelError, ChannelHandler, ChannelId } from '../native/channel.ts';
import { listenTcp, OWN_NETNS } from '../native/netns.ts';
import { CulvertError } from '../src/errors.ts';
import type { Http2Connection, Http2Events } from '../src/hbone/connection.ts';
import { ErrorCode } from '../src/hbone/http-error.ts';
import { type TunnelKey, TunnelPool, type TunnelRequest } from '../src/hbone/pool.ts';
import type { Http2Stream, StreamHandler } from '../src/hbone/stream.ts';
import { tunnelOnChannel } from '../src/hbone/tunnel.ts';
import type { RelayOwner } from '../src/relay/byte-counter.ts';
import { TunnelRelay } from '../src/relay/tunnel-relay.ts';
import {
  ACCEPTED,
  createLoop,
  http2,
  LISTENER,
  LOOPBACK,
  REQUEST,
  readContext,
  TLS_GROUPS,
  TRUST_DOMAIN,
} from './harness/data-path.ts';

const [role, listen, to, key = '', chain = '', roots = '', ownIdentity = '', peerIdentity = ''] = process.argv.slice(2);

const loop = createLoop();
const context = readContext(loop, key, chain, roots, TLS_GROUPS);

const noChannelEvents = { connected() {}, secured() {}, ended() {}, drained() {}, closed() {} };
const noStreamEvents = { streamResponse() {}, streamData() {}, streamEnded() {}, streamWritable() {} };
const countNothing: RelayOwner = { received() {}, sent() {}, relayEnded() {} };

// The near side.

const tunnelKey: TunnelKey = {
  source: ownIdentity,
  expected: [peerIdentity],
  ip: LOOPBACK,
  port: Number(to),
  pod: 'bench',
};
const pool = new TunnelPool({
  maxStreams: 100,
  idleTimeout: 300_000,
  maxAge: 0,
  now: () => performance.now(),
  random: Math.random,
  count() {},
  dial(key, events) {
    const dialling: ChannelHandler = {
      ...noChannelEvents,
      data: () => 0,
      connected: () => loop.startTls(channel, context, 'client', key.expected, ''),
      secured() {
        const connection: Http2Connection = tunnelOnChannel(
          loop,
          channel,
          { ...http2, role: 'client' },
          {
            request: () => {
              throw new CulvertError('UNEXPECTED_REQUEST', 'the far side sent a request');
            },
            goingAway: () => pool.retired(connection),
            streamClosed: () => pool.streamClosed(connection),
            closed: () => pool.closed(connection),
          },
        );
        events.opened(connection);
      },
      failed(error) {
        loop.close(channel);
        events.failed(error);
      },
    };
    const channel = loop.connect(OWN_NETNS, key.ip, key.port, null, dialling);
  },
});

/** A plain connection that waits for its stream. */
class Outgoing implements ChannelHandler, StreamHandler, TunnelRequest {
  readonly isOver = false;
  readonly #channel: ChannelId;
  #stream: Http2Stream | null = null;

  constructor(channel: ChannelId) {
    this.#channel = channel;
    loop.adopt(channel, this);
    pool.request(tunnelKey, this);
  }

  tunnel(connection: Http2Connection): void {
    this.#stream = connection.open(REQUEST, this);
  }

  noTunnel(error: CulvertError): void {
    console.error(error.message);
    loop.reset(this.#channel);
  }

  streamResponse(status: number): void {
    if (this.#stream === null || status !== 200) {
      loop.reset(this.#channel);
      return;
    }
    new TunnelRelay(loop, this.#channel, this.#stream, 'client', countNothing).start();
  }

  streamReset(): void {
    loop.reset(this.#channel);
  }

  failed(): void {
    this.#stream?.reset(ErrorCode.CANCEL);
    loop.close(this.#channel);
  }

  data(): number {
    return 0;
  }

  streamData(): void {}
  streamEnded(): void {}
  streamWritable(): void {}
  connected(): void {}
  secured(): void {}
  ended(): void {}
  drained(): void {}
  closed(): void {}
}

// The far side.

const incoming: Http2Events = {
  request(stream): StreamHandler {
    const channel = loop.connect(OWN_NETNS, LOOPBACK, Number(to), null, {
      ...noChannelEvents,
      data: () => 0,
      connected() {
        stream.respond(ACCEPTED, false);
        new TunnelRelay(loop, channel, stream, 'server', countNothing).start();
      },
      failed() {
        stream.reset(ErrorCode.CONNECT_ERROR);
        loop.close(channel);
      },
    });
    return { ...noStreamEvents, streamReset: () => loop.reset(channel) };
  },
  goingAway() {},
  streamClosed() {},
  closed() {},
};

function acceptTunnel(channel: ChannelId): void {
  loop.adopt(channel, {
    ...noChannelEvents,
    data: () => 0,
    secured: () => tunnelOnChannel(loop, channel, { ...http2, role: 'server' }, incoming),
    failed(error: ChannelError) {
      console.error(error.message);
      loop.close(channel);
    },
  });
  loop.startTls(channel, context, 'server', [], TRUST_DOMAIN);
}

const listener = listenTcp(OWN_NETNS, LOOPBACK, Number(listen), LISTENER);
loop.listen(listener.fd, false, {
  accepted({ channel }: Accepted) {
    if (role === 'near') new Outgoing(channel);
    else acceptTunnel(channel);
  },
  failed(error) {
    throw error;
  },
});

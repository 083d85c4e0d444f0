/**
 * One side of the culvert contender: the data path of the agent, with everything decided beforehand.
 *
 *     node relay-peer.ts near|far <port to listen on> <port to connect to> <key> <chain> <roots> <own id> <peer's id>
 *
 * near: plain TCP → stream of a pooled HBONE tunnel. far: HBONE stream → plain TCP.
 */

import { readFileSync } from 'node:fs';
import {
  type Accepted,
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  ChannelLoop,
} from '../native/channel.ts';
import { listenTcp, OWN_NETNS } from '../native/netns.ts';
import { CulvertError } from '../src/errors.ts';
import { connectRequestHeaders, responseHeaders } from '../src/hbone/connect-headers.ts';
import type { Http2Connection, Http2Events, Http2Options } from '../src/hbone/connection.ts';
import type { HeaderField } from '../src/hbone/hpack.ts';
import { ErrorCode } from '../src/hbone/http-error.ts';
import { type TunnelKey, TunnelPool, type TunnelRequest } from '../src/hbone/pool.ts';
import type { Http2Stream, StreamHandler } from '../src/hbone/stream.ts';
import { tunnelOnChannel } from '../src/hbone/tunnel.ts';
import { WindowBudget } from '../src/hbone/window-budget.ts';
import type { RelayOwner } from '../src/relay/byte-counter.ts';
import { TunnelRelay } from '../src/relay/tunnel-relay.ts';

const [role, listen, to, key = '', chain = '', roots = '', ownIdentity = '', peerIdentity = ''] = process.argv.slice(2);
const LOOPBACK = '127.0.0.1';
const TRUST_DOMAIN = 'cluster.local';

const loop = new ChannelLoop((error) => {
  console.error(error);
  process.exit(1);
});
loop.setStreamOptions({ mark: 0, keepalive: { time: 180, interval: 180, retries: 9 }, userTimeoutMs: 0 });
const context = loop.newTlsContext({
  chainPem: readFileSync(chain, 'utf8'),
  keyPem: readFileSync(key, 'utf8'),
  rootsPem: readFileSync(roots, 'utf8'),
  groups: '*X25519MLKEM768:*X25519:P-256',
  keyLogPath: '',
  tls12: false,
});

/** The agent's own values (src/config). */
const http2: Omit<Http2Options, 'role'> = {
  initialWindow: 256 * 1024,
  maxWindow: 4 * 1024 * 1024,
  connectionWindow: 16 * 1024 * 1024,
  maxFrameSize: 1024 * 1024,
  maxHeaderListSize: 64 * 1024,
  maxConcurrentStreams: 0xffffffff,
  assumedPeerStreams: 100,
  budget: new WindowBudget(256 * 1024 * 1024),
  breached() {},
  now: () => performance.now(),
};

/** As long as the real ones, because every stream sends them. */
const request: HeaderField[] = connectRequestHeaders({
  authority: '10.244.0.12:8080',
  baggage:
    'k8s.namespace.name=bench,k8s.deployment.name=near,service.name=near,service.version=v1,cloud.region=r1,cloud.availability_zone=z1',
  forwarded: 'for=10.244.0.11',
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  forwardedNetwork: null,
});
const accept = responseHeaders(200, null);

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
    this.#stream = connection.open(request, this);
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
        stream.respond(accept, false);
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

const listener = listenTcp(OWN_NETNS, LOOPBACK, Number(listen), {
  mark: 0,
  keepalive: { time: 180, interval: 180, retries: 9 },
  userTimeoutMs: 0,
  reusePort: false,
  transparent: 'no',
  backlog: 4096,
  dualStack: false,
});
loop.listen(listener.fd, false, {
  accepted({ channel }: Accepted) {
    if (role === 'near') new Outgoing(channel);
    else acceptTunnel(channel);
  },
  failed(error) {
    throw error;
  },
});

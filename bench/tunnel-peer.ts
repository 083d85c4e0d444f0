/**
 * One side of the culvert contender of *tunnels*: opens tunnels, one after the other, or takes them.
 *
 *     node tunnel-peer.ts far <port> <key> <chain> <roots> <groups>
 *     node tunnel-peer.ts near <port> <key> <chain> <roots> <groups> <peer's id> <seconds>
 *
 * near prints how many tunnels it opened, per second: TCP, mutual TLS 1.3, CONNECT and its answer. far answers at once.
 */

import { type ChannelHandler, type ChannelId, NO_HANDLER } from '../native/channel.ts';
import { listenTcp, OWN_NETNS } from '../native/netns.ts';
import type { Http2Connection, Http2Events } from '../src/hbone/connection.ts';
import type { StreamHandler } from '../src/hbone/stream.ts';
import { tunnelOnChannel } from '../src/hbone/tunnel.ts';
import {
  ACCEPTED,
  createLoop,
  http2,
  LISTENER,
  LOOPBACK,
  REQUEST,
  readContext,
  TRUST_DOMAIN,
} from './harness/data-path.ts';

const [role, port, key = '', chain = '', roots = '', groups = '', peerIdentity = '', seconds] = process.argv.slice(2);
const loop = createLoop();
const context = readContext(loop, key, chain, roots, groups);

const handler: ChannelHandler = {
  ...NO_HANDLER,
  failed(error) {
    console.error(error.message);
    process.exit(1);
  },
};
const noStreamEvents = { streamData() {}, streamEnded() {}, streamReset() {}, streamWritable() {} };
const noEvents = { goingAway() {}, streamClosed() {}, closed() {} };

if (role === 'near') near();
else far();

function near(): void {
  const start = performance.now();
  const end = start + Number(seconds) * 1000;
  let opened = 0;
  const next = () => {
    const now = performance.now();
    if (now >= end) {
      process.stdout.write(`${(opened / (now - start)) * 1000}\n`, () => process.exit(0));
      return;
    }
    open(() => {
      opened++;
      next();
    });
  };
  next();
}

function open(done: () => void): void {
  const events: Http2Events = { ...noEvents, request: () => ({ ...noStreamEvents, streamResponse() {} }) };
  const channel: ChannelId = loop.connect(OWN_NETNS, LOOPBACK, Number(port), null, {
    ...handler,
    connected: () => loop.startTls(channel, context, 'client', [peerIdentity], ''),
    secured() {
      const connection: Http2Connection = tunnelOnChannel(loop, channel, { ...http2, role: 'client' }, events);
      const stream = connection.open(REQUEST, {
        ...noStreamEvents,
        streamResponse() {
          stream?.end();
          connection.drain();
          done();
        },
      });
    },
  });
}

function far(): void {
  const events: Http2Events = {
    ...noEvents,
    request(stream): StreamHandler {
      stream.respond(ACCEPTED, true);
      return { ...noStreamEvents, streamResponse() {} };
    },
  };
  loop.listen(listenTcp(OWN_NETNS, LOOPBACK, Number(port), LISTENER).fd, false, {
    accepted({ channel }) {
      loop.adopt(channel, {
        ...handler,
        secured: () => tunnelOnChannel(loop, channel, { ...http2, role: 'server' }, events),
      });
      loop.startTls(channel, context, 'server', [], TRUST_DOMAIN);
    },
    failed(error) {
      throw error;
    },
  });
}

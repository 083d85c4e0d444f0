/** Relays between real sockets of the test's own thread and streams or sockets whose other end the test is. */
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { type ChannelId, ChannelLoop, NO_HANDLER } from '../../../native/channel.ts';
import { listenTcp, OWN_NETNS } from '../../../native/netns.ts';
import type { Http2Stream } from '../../../src/hbone/stream.ts';
import type { RelayEnd, RelayOwner } from '../../../src/relay/byte-counter.ts';
import { PlainRelay } from '../../../src/relay/plain-relay.ts';
import { TunnelRelay } from '../../../src/relay/tunnel-relay.ts';
import { ConnectionUnderTest, responseFrame } from '../../hbone/connection/support/connection-under-test.ts';
import { MemoryTransport } from '../../hbone/connection/support/memory-transport.ts';
import { freePort } from '../../support/free-ports.ts';
import { PATIENCE_MS } from '../../support/patience.ts';
import { plainListener } from '../../support/tcp.ts';

const LOCALHOST = '127.0.0.1';
export class Owner implements RelayOwner {
  receivedBytes = 0;
  sentBytes = 0;
  end: RelayEnd | null = null;
  ends = 0;

  received(bytes: number): void {
    this.receivedBytes += bytes;
  }

  sent(bytes: number): void {
    this.sentBytes += bytes;
  }

  relayEnded(end: RelayEnd): void {
    this.ends++;
    this.end = end;
  }
}

/** An application's end of a connection: what it has read, and how the connection ended for it. */
export class Application {
  readonly socket: Socket;
  readonly chunks: Buffer[] = [];
  end: 'open' | 'fin' | 'reset' = 'open';

  constructor(t: TestContext, socket: Socket) {
    this.socket = socket;
    socket.pause();
    socket.on('data', (bytes: Buffer) => this.chunks.push(bytes));
    socket.pause();
    socket.on('end', () => {
      this.end = 'fin';
    });
    socket.on('error', () => {
      this.end = 'reset';
    });
    t.after(() => socket.destroy());
  }

  get length(): number {
    return this.chunks.reduce((sum, { length }) => sum + length, 0);
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }

  /** Reads from here on. */
  read(): void {
    this.socket.resume();
  }
}

export function loopOf(t: TestContext): ChannelLoop {
  const bugs: unknown[] = [];
  const loop = new ChannelLoop((error) => bugs.push(error));
  t.after(() => {
    loop.stop();
    if (bugs.length > 0) throw bugs[0];
  });
  return loop;
}

/** An application that has connected, and the channel that it was accepted as. */
export async function accepted(t: TestContext, loop: ChannelLoop): Promise<{ app: Application; channel: ChannelId }> {
  const port = await freePort();
  const { fd } = listenTcp(OWN_NETNS, LOCALHOST, port, plainListener);
  const arrival = Promise.withResolvers<ChannelId>();
  const listener = loop.listen(fd, false, {
    accepted({ channel }) {
      loop.adopt(channel, NO_HANDLER);
      arrival.resolve(channel);
    },
    failed: (error) => arrival.reject(error),
  });
  const app = new Application(t, connect({ port, host: LOCALHOST, allowHalfOpen: true }));
  const channel = await arrival.promise;
  loop.closeListener(listener);
  return { app, channel };
}

/** An application at the client's end of a CONNECT stream; the test is the peer of the tunnel. */
export async function tunnelRelayUnderTest(
  t: TestContext,
  settings: ReadonlyArray<readonly [id: number, value: number]> = [],
): Promise<{
  loop: ChannelLoop;
  app: Application;
  tunnel: ConnectionUnderTest;
  stream: Http2Stream;
  relay: TunnelRelay;
  owner: Owner;
}> {
  const loop = loopOf(t);
  const { app, channel } = await accepted(t, loop);
  const tunnel = new ConnectionUnderTest('client', {}, {}, new MemoryTransport(loop.memory)).established(settings);
  const { stream } = tunnel.open();
  tunnel.receive(responseFrame(stream.id, 200));
  tunnel.frames();
  const owner = new Owner();
  const relay = new TunnelRelay(loop, channel, stream, 'client', owner);
  relay.start();
  return { loop, app, tunnel, stream, relay, owner };
}

export async function plainRelayUnderTest(t: TestContext) {
  const loop = loopOf(t);
  const client = await accepted(t, loop);
  const server = await accepted(t, loop);
  const owner = new Owner();
  const relay = new PlainRelay(loop, client.channel, server.channel, owner);
  relay.start();
  return { loop, client: client.app, server: server.app, relay, owner };
}

/** Waits for what nothing tells; looks in every turn of the event loop. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`not so: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../native/channel.ts';
import type { Pod } from '../../src/demo/pod-network.ts';
import { loopServing } from './own-loop.ts';

/** Connections from one pod to another that do nothing after a byte went there and back. */
export interface IdleConnections {
  /** Resolves when so many are held. */
  holdAtLeast(count: number): Promise<void>;
  /** Closes all of them, in order. */
  close(): void;
  /** Gives everything back. */
  stop(): void;
}

const PORT = 7000;
/** Connections that are being made at the same time. */
const BATCH = 50;

/** Both ends are held by this process, on culvert's own channels. */
export function idleConnections(client: Pod, server: Pod): IdleConnections {
  const loop = loopServing(server, PORT, (loop, channel) => new Answering(loop, channel));
  const held: Asking[] = [];
  return {
    async holdAtLeast(count) {
      while (held.length < count) {
        const batch = Array.from(
          { length: Math.min(BATCH, count - held.length) },
          () => new Asking(loop, client, server),
        );
        await Promise.all(batch.map(({ answered }) => answered));
        held.push(...batch);
      }
    },
    close() {
      for (const connection of held.splice(0)) connection.close();
    },
    stop: () => loop.stop(),
  };
}

class Asking implements ChannelHandler {
  readonly answered: Promise<void>;
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;
  readonly #resolve: () => void;
  readonly #reject: (error: ChannelError) => void;

  constructor(loop: ChannelLoop, client: Pod, server: Pod) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.answered = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#loop = loop;
    this.#channel = loop.connect(client.netns.fd, server.ipv4, PORT, null, this);
  }

  connected(): void {
    this.#loop.write(this.#channel, 0, 1);
    this.#loop.resume(this.#channel, NO_LIMIT);
  }

  data(): number {
    this.#resolve();
    return NO_LIMIT;
  }

  failed(error: ChannelError): void {
    this.#reject(error);
    this.close();
  }

  close(): void {
    this.#loop.close(this.#channel);
  }

  secured(): void {}
  ended(): void {}
  drained(): void {}
  closed(): void {}
}

class Answering implements ChannelHandler {
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;

  constructor(loop: ChannelLoop, channel: ChannelId) {
    this.#loop = loop;
    this.#channel = channel;
  }

  data(offset: number, length: number): number {
    this.#loop.write(this.#channel, offset, length);
    return NO_LIMIT;
  }

  ended(): void {
    this.#loop.close(this.#channel);
  }

  failed(): void {
    this.#loop.close(this.#channel);
  }

  connected(): void {}
  secured(): void {}
  drained(): void {}
  closed(): void {}
}

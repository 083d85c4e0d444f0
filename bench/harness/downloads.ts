import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../native/channel.ts';
import type { Pod } from '../../src/demo/pod-network.ts';
import { loopServing } from './own-loop.ts';

/** Downloads from one pod to another. Both ends are held by this process, on culvert's own channels. */
export interface Downloads {
  /** Connects so many; resolves when all have exchanged a byte with the server. */
  connect(count: number): Promise<void>;
  /** All of them ask for `bytes` at the same moment. Resolves to the ms that each took. */
  fetch(bytes: number): Promise<number[]>;
  /** All of them ask for bytes without end and take none. */
  stall(): void;
  /** Closes them; resolves when the server has seen all ends. */
  close(): Promise<void>;
  stop(): void;
}

const PORT = 7100;
const CHUNK = 64 * 1024;
/** A sender waits when so much of it has not been taken. */
const QUEUE = 128 * 1024;

export function downloads(client: Pod, server: Pod): Downloads {
  const loop = loopServing(server, PORT, (loop, channel) => new Sending(loop, channel));
  let held: Fetching[] = [];
  return {
    async connect(count) {
      held = Array.from({ length: count }, () => new Fetching(loop, client, server));
      await Promise.all(held.map(({ greeted }) => greeted));
    },
    fetch: (bytes) => Promise.all(held.map((each) => each.fetch(bytes))),
    stall() {
      for (const each of held) each.stall();
    },
    async close() {
      for (const each of held) each.close();
      held = [];
      while (loop.size > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    },
    stop: () => loop.stop(),
  };
}

/** The client's end. It asks with four bytes: how many it wants, 0 for a greeting, 2^32-1 for no end. */
class Fetching implements ChannelHandler {
  readonly greeted: Promise<void>;
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;
  readonly #greet = Promise.withResolvers<void>();
  #missing = 1;
  #asked = 0;
  #done: ((ms: number) => void) | null = null;

  constructor(loop: ChannelLoop, client: Pod, server: Pod) {
    this.greeted = this.#greet.promise;
    this.#loop = loop;
    this.#channel = loop.connect(client.netns.fd, server.ipv4, PORT, null, this);
  }

  connected(): void {
    this.#ask(0);
    this.#loop.resume(this.#channel, NO_LIMIT);
  }

  fetch(bytes: number): Promise<number> {
    this.#missing = bytes;
    this.#asked = performance.now();
    this.#ask(bytes);
    return new Promise((resolve) => {
      this.#done = resolve;
    });
  }

  stall(): void {
    this.#loop.resume(this.#channel, 0);
    this.#ask(ENDLESS);
  }

  close(): void {
    this.#loop.reset(this.#channel);
  }

  data(_offset: number, length: number): number {
    this.#missing -= length;
    if (this.#missing > 0) return NO_LIMIT;
    this.#greet.resolve();
    this.#done?.(performance.now() - this.#asked);
    return NO_LIMIT;
  }

  ended(): void {
    this.failed(new Error('the server ended the connection'));
  }

  failed(error: ChannelError | Error): void {
    throw error;
  }

  #ask(bytes: number): void {
    new DataView(this.#loop.memory.buffer, this.#loop.memory.byteOffset).setUint32(0, bytes);
    this.#loop.write(this.#channel, 0, 4);
  }

  secured(): void {}
  drained(): void {}
  closed(): void {}
}

const ENDLESS = 0xffff_ffff;

/** The server's end. */
class Sending implements ChannelHandler {
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;
  #left = 0;

  constructor(loop: ChannelLoop, channel: ChannelId) {
    this.#loop = loop;
    this.#channel = channel;
  }

  data(offset: number, length: number): number {
    if (length !== 4) throw new Error(`a question of ${length} bytes`);
    const { memory } = this.#loop;
    const bytes = new DataView(memory.buffer, memory.byteOffset).getUint32(offset);
    this.#left = bytes === 0 ? 1 : bytes === ENDLESS ? Number.POSITIVE_INFINITY : bytes;
    this.#send();
    return NO_LIMIT;
  }

  drained(queued: number): void {
    if (queued === 0) this.#send();
  }

  #send(): void {
    while (this.#left > 0) {
      const part = Math.min(CHUNK, this.#left);
      this.#left -= part;
      const queued = this.#loop.write(this.#channel, 0, part);
      if (queued < 0 || (queued > QUEUE && this.#loop.flush(this.#channel) > 0)) return;
    }
  }

  ended(): void {
    this.#loop.close(this.#channel);
  }

  failed(): void {
    this.#loop.close(this.#channel);
  }

  connected(): void {}
  secured(): void {}
  closed(): void {}
}

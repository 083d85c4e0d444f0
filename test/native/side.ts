/** Both ends of connections on channels, for tests: what happens on them is written down and can be awaited. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import {
  type Accepted,
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  ChannelLoop,
  NO_LIMIT,
} from '../../native/channel.ts';
import { type ListenOptions, listenTcp, OWN_NETNS } from '../../native/netns.ts';

export const LOCAL = '127.0.0.1';

/** A loop that is stopped after the test; a bug in a handler fails the test. */
export function testLoop(t: TestContext): ChannelLoop {
  const loop = new ChannelLoop((error) => {
    throw error;
  });
  t.after(() => loop.stop());
  return loop;
}

/** One end of a connection. */
export class Side implements ChannelHandler {
  channel: ChannelId = 0;
  /** What was told, in order, without `data`. */
  readonly log: string[] = [];
  /** What `data` returns. */
  limit = NO_LIMIT;
  /** Lengths of the reads. */
  readonly reads: number[] = [];
  /** Of all of them; `received` puts the bytes together whenever it is asked. */
  receivedLength = 0;
  /** Runs after the event was written down; a number is what `data` returns. */
  on: (event: string) => unknown = () => undefined;
  readonly loop: ChannelLoop;
  readonly #chunks: Buffer[] = [];
  #waiting: { readonly met: () => boolean; readonly resolve: () => void }[] = [];

  constructor(loop: ChannelLoop) {
    this.loop = loop;
  }

  get received(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.received.toString('latin1');
  }

  data(offset: number, length: number): number {
    this.reads.push(length);
    this.receivedLength += length;
    this.#chunks.push(Buffer.from(this.loop.memory.slice(offset, offset + length)));
    const limit = this.on('data');
    this.#look();
    return typeof limit === 'number' ? limit : this.limit;
  }

  connected(): void {
    this.#note('connected');
  }

  secured(): void {
    this.#note('secured');
  }

  ended(): void {
    this.#note('ended');
  }

  drained(queued: number): void {
    this.#note(`drained ${queued}`);
  }

  failed(error: ChannelError): void {
    this.#note(`failed ${error.code}: ${error.message}`);
  }

  closed(): void {
    this.#note('closed');
  }

  /** Waits for an event whose text begins so; one that was told already counts. A failure instead of it is thrown. */
  async told(event: string): Promise<string> {
    const find = (start: string) => this.log.find((entry) => entry.startsWith(start));
    await this.until(() => (find(event) ?? find('failed')) !== undefined);
    const found = find(event);
    if (found === undefined) throw new Error(`instead of '${event}': ${this.log.join(', ')}`);
    return found;
  }

  until(met: () => boolean): Promise<void> {
    return met() ? Promise.resolve() : new Promise((resolve) => this.#waiting.push({ met, resolve }));
  }

  /** Writes through the scratch space. Returns what the last `write` returned. */
  send(bytes: string | Uint8Array): number {
    const from = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
    let queued = 0;
    for (let at = 0; at < from.length; at += this.loop.scratchSize) {
      const part = from.subarray(at, at + this.loop.scratchSize);
      this.loop.memory.set(part, 0);
      queued = this.loop.write(this.channel, 0, part.length);
    }
    return queued;
  }

  resume(limit = this.limit): void {
    this.loop.resume(this.channel, limit);
  }

  #note(event: string): void {
    this.log.push(event);
    this.on(event.split(' ', 1)[0]!);
    this.#look();
  }

  #look(): void {
    const met = this.#waiting.filter((waiter) => waiter.met());
    if (met.length === 0) return;
    this.#waiting = this.#waiting.filter((waiter) => !met.includes(waiter));
    for (const waiter of met) waiter.resolve();
  }
}

const plain: ListenOptions = {
  mark: 0,
  keepalive: null,
  userTimeoutMs: 0,
  reusePort: false,
  transparent: 'no',
  backlog: 1024,
  dualStack: false,
};

/** A listening socket on a free port of 127.0.0.1. */
export function listenSomewhere(netns = OWN_NETNS, options: Partial<ListenOptions> = {}): { fd: number; port: number } {
  // Below those that other tests draw and bind later, and those that the kernel gives to outgoing connections.
  for (let tries = 0; tries < 1000; tries++) {
    const port = 10_000 + Math.floor(Math.random() * 5000);
    try {
      return { fd: listenTcp(netns, LOCAL, port, { ...plain, ...options }).fd, port };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
  throw new Error('no free port');
}

/** Listens and hands each accepted connection over as a paused `Side`. */
export function acceptSides(
  loop: ChannelLoop,
  take: (side: Side, connection: Accepted) => void,
  netns = OWN_NETNS,
): { port: number; close(): void } {
  const { fd, port } = listenSomewhere(netns);
  const listener = loop.listen(fd, false, {
    accepted(connection) {
      const side = new Side(loop);
      side.channel = connection.channel;
      loop.adopt(connection.channel, side);
      take(side, connection);
    },
    failed(error) {
      throw error;
    },
  });
  return { port, close: () => loop.closeListener(listener) };
}

export function connectSide(loop: ChannelLoop, port: number, netns = OWN_NETNS): Side {
  const side = new Side(loop);
  side.channel = loop.connect(netns, LOCAL, port, null, side);
  return side;
}

/** A connection whose both ends are channels of the loop, both paused. */
export async function connectedPair(loop: ChannelLoop, netns = OWN_NETNS): Promise<{ client: Side; server: Side }> {
  const accepted = Promise.withResolvers<Side>();
  const listening = acceptSides(loop, accepted.resolve, netns);
  const client = connectSide(loop, listening.port, netns);
  await client.told('connected');
  const server = await accepted.promise;
  listening.close();
  client.log.length = 0;
  return { client, server };
}

/** Bytes that tell where they belong. */
export function pattern(length: number, from = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = patternByte(from + i);
  return bytes;
}

/** A byte that depends on every bit of its position, so that no shift by a record, page or buffer goes unnoticed. */
export function patternByte(position: number): number {
  return (Math.imul(position ^ (position >>> 13), 0x9e3779b1) >>> 24) & 0xff;
}

/** The turn in which this was called is over, and so is another one. */
export function nextTurns(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

export function assertLog(side: Side, expected: readonly string[]): void {
  assert.deepEqual(side.log, expected);
}

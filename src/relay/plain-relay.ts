// Hot path (bench/: pods, passthrough).
import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../native/channel.ts';
import { COMPLETE, type RelayOwner } from './byte-counter.ts';

/**
 * Carries bytes between two plain connections, with half-close and reset preserved. Either side is read only while the
 * other one takes what was read.
 */
export class PlainRelay {
  readonly #client: Side;
  readonly #server: Side;
  readonly #owner: RelayOwner;
  /** Sides whose close waits until they have taken what is queued. */
  #closing = 0;
  #done = false;

  constructor(loop: ChannelLoop, client: ChannelId, server: ChannelId, owner: RelayOwner) {
    this.#owner = owner;
    this.#client = new Side(this, loop, client, server, true);
    this.#server = new Side(this, loop, server, client, false);
  }

  /** Takes over both channels. */
  start(): void {
    this.#client.start();
    this.#server.start();
  }

  /** Ends both sides with resets: the connection is not allowed to go on. */
  cut(): void {
    if (this.#done) return;
    this.#done = true;
    this.#client.reset();
    this.#server.reset();
  }

  count(fromClient: boolean, bytes: number): void {
    if (fromClient) this.#owner.received(bytes);
    else this.#owner.sent(bytes);
  }

  /** A side has taken all that waited for it: the other one is read on. */
  drained(side: Side): void {
    this.#other(side).resume();
  }

  /** A side sends no more. */
  sideEnded(side: Side): void {
    const other = this.#other(side);
    if (this.#done) return;
    if (!other.hasEnded) {
      other.shutdown();
      return;
    }
    for (const each of [side, other]) if (!each.close()) this.#closing++;
    if (this.#closing === 0) this.#complete();
  }

  sideClosed(): void {
    this.#closing--;
    if (this.#closing === 0) this.#complete();
  }

  broken(side: Side, error: ChannelError): void {
    if (this.#done) return;
    this.#done = true;
    side.close();
    this.#other(side).reset();
    this.#owner.relayEnded({
      kind: 'broken',
      side: side === this.#client ? 'client' : 'server',
      detail: error.message,
    });
  }

  #complete(): void {
    if (this.#done) return;
    this.#done = true;
    this.#owner.relayEnded(COMPLETE);
  }

  #other(side: Side): Side {
    return side === this.#client ? this.#server : this.#client;
  }
}

/** One of the two connections: what it reads goes to the other. */
class Side implements ChannelHandler {
  hasEnded = false;
  readonly #relay: PlainRelay;
  readonly #loop: ChannelLoop;
  readonly #own: ChannelId;
  readonly #other: ChannelId;
  readonly #isClient: boolean;

  constructor(relay: PlainRelay, loop: ChannelLoop, own: ChannelId, other: ChannelId, isClient: boolean) {
    this.#relay = relay;
    this.#loop = loop;
    this.#own = own;
    this.#other = other;
    this.#isClient = isClient;
  }

  start(): void {
    this.#loop.adopt(this.#own, this);
    this.resume();
  }

  data(offset: number, length: number): number {
    this.#relay.count(this.#isClient, length);
    if (this.#loop.write(this.#other, offset, length) <= 0) return NO_LIMIT;
    // The other side is behind: what waits there must go first.
    return this.#loop.flush(this.#other) > 0 ? 0 : NO_LIMIT;
  }

  ended(): void {
    this.hasEnded = true;
    this.#relay.sideEnded(this);
  }

  drained(queued: number): void {
    if (queued === 0) this.#relay.drained(this);
  }

  failed(error: ChannelError): void {
    this.#relay.broken(this, error);
  }

  resume(): void {
    this.#loop.resume(this.#own, NO_LIMIT);
  }

  shutdown(): void {
    this.#loop.shutdown(this.#own);
  }

  /** True when that is done at once. */
  close(): boolean {
    return this.#loop.close(this.#own);
  }

  closed(): void {
    this.#relay.sideClosed();
  }

  reset(): void {
    this.#loop.reset(this.#own);
  }

  connected(): void {}
  secured(): void {}
}

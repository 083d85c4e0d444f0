// Hot path (bench/: relay, pods): called per read of the application and per DATA frame.
import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../native/channel.ts';
import { ErrorCode } from '../hbone/http-error.ts';
import type { Http2Stream, StreamHandler, StreamReset } from '../hbone/stream.ts';
import { COMPLETE, type RelayEnd, type RelayOwner } from './byte-counter.ts';

/** Which end of the stream the application is at. */
export type ApplicationRole = 'client' | 'server';

/**
 * Carries bytes between an application's connection and a CONNECT stream. TCP semantics survive: a FIN becomes END_STREAM
 * and back, a RST becomes RST_STREAM(CONNECT_ERROR) and back (RFC 9113 §8.5). Either side is read only as fast as the
 * other one takes it.
 */
export class TunnelRelay implements ChannelHandler, StreamHandler {
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;
  readonly #stream: Http2Stream;
  readonly #fromClient: boolean;
  readonly #owner: RelayOwner;
  /** Written to the application and not returned as credit. */
  #untaken = 0;
  #blocked = false;
  #applicationEnded = false;
  #streamEnded = false;
  #done = false;

  constructor(loop: ChannelLoop, channel: ChannelId, stream: Http2Stream, role: ApplicationRole, owner: RelayOwner) {
    this.#loop = loop;
    this.#channel = channel;
    this.#stream = stream;
    this.#fromClient = role === 'client';
    this.#owner = owner;
  }

  /** Takes over channel and stream. */
  start(): void {
    this.#stream.handler = this;
    this.#loop.adopt(this.#channel, this);
    this.#resume();
  }

  /** Ends both sides with resets: the connection is not allowed to go on. */
  cut(): void {
    if (this.#done) return;
    this.#done = true;
    this.#stream.reset(ErrorCode.CONNECT_ERROR);
    this.#loop.reset(this.#channel);
  }

  // The application's side.

  data(offset: number, length: number): number {
    const part = Math.min(length, this.#stream.sendable());
    // Streams share what was allowed when the read began.
    if (part < length) this.#loop.unread(this.#channel, offset + part, length - part);
    if (part > 0) {
      if (this.#fromClient) this.#owner.received(part);
      else this.#owner.sent(part);
      this.#stream.send(offset, part);
    }
    return this.#limit();
  }

  ended(): void {
    this.#applicationEnded = true;
    this.#stream.end();
    this.#finishIfBothEnded();
  }

  drained(queued: number): void {
    const taken = this.#untaken - queued;
    if (taken > 0) {
      this.#untaken = queued;
      this.#stream.credit(taken);
    }
    if (queued === 0) this.#blocked = false;
  }

  failed(error: ChannelError): void {
    if (this.#done) return;
    this.#done = true;
    this.#stream.reset(ErrorCode.CONNECT_ERROR);
    this.#loop.close(this.#channel);
    this.#owner.relayEnded(broken(this.#fromClient ? 'client' : 'server', error.message));
  }

  /** The application has taken the last of what waited for it. */
  closed(): void {
    this.#complete();
  }

  connected(): void {}
  secured(): void {}

  // The stream's side.

  streamResponse(): void {}

  streamData(offset: number, length: number): void {
    if (this.#fromClient) this.#owner.sent(length);
    else this.#owner.received(length);
    this.#loop.write(this.#channel, offset, length);
    this.#untaken += length;
    if (this.#blocked || this.#untaken < this.#stream.creditThreshold) return;
    const queued = this.#loop.flush(this.#channel);
    if (queued > 0) {
      this.#blocked = true;
      this.drained(queued);
    } else if (this.#untaken > 0) {
      this.drained(0);
    }
  }

  /** The same for bytes that came before the relay did. */
  streamBytes(bytes: Uint8Array): void {
    const { memory, scratchSize } = this.#loop;
    for (let at = 0; at < bytes.length && !this.#done; at += scratchSize) {
      const part = bytes.subarray(at, at + scratchSize);
      memory.set(part, 0);
      this.streamData(0, part.length);
    }
  }

  streamEnded(): void {
    this.#streamEnded = true;
    this.#finishIfBothEnded();
    if (!this.#done) this.#loop.shutdown(this.#channel);
  }

  streamReset(reset: StreamReset): void {
    if (this.#done) return;
    // RFC 9113 §8.1: NO_ERROR after a complete answer only says that the rest of the request is not wanted.
    if (this.#streamEnded && reset.code === ErrorCode.NO_ERROR) {
      this.#close();
      return;
    }
    this.#done = true;
    // What came before the reset, perhaps in the same read, was sent before it: a server that closes with unread input
    // resets the connection right behind its answer.
    this.#loop.flush(this.#channel);
    this.#loop.reset(this.#channel);
    this.#owner.relayEnded(broken(this.#fromClient ? 'server' : 'client', reset.detail));
  }

  streamWritable(): void {
    if (!this.#applicationEnded) this.#resume();
  }

  /** What the next read may bring; 0 and a place in the queue when nothing may be sent. */
  #limit(): number {
    const turn = this.#stream.turn();
    if (turn > 0) return Math.min(turn, NO_LIMIT);
    this.#stream.waitForWindow();
    return 0;
  }

  #resume(): void {
    const limit = this.#limit();
    if (limit > 0) this.#loop.resume(this.#channel, limit);
  }

  #finishIfBothEnded(): void {
    if (this.#applicationEnded && this.#streamEnded) this.#close();
  }

  /** Bytes may still wait for the application; until it has them the connection can be cut. */
  #close(): void {
    if (this.#loop.close(this.#channel)) this.#complete();
  }

  #complete(): void {
    if (this.#done) return;
    this.#done = true;
    this.#owner.relayEnded(COMPLETE);
  }
}

function broken(side: 'client' | 'server', detail: string): RelayEnd {
  return { kind: 'broken', side, detail };
}

import type { Carrier, ChannelHandler, ChannelId, ChannelLoop } from '../../native/channel.ts';
import { Patience } from '../patience.ts';
import { FRAME_HEADER_SIZE } from './frames.ts';
import { ErrorCode } from './http-error.ts';
import type { Http2Stream, StreamHandler, StreamReset } from './stream.ts';

/**
 * A channel whose bytes travel in a CONNECT stream of another tunnel (double HBONE), paused and without TLS so far. Its
 * ends and resets become the stream's, and back.
 */
export function channelInStream(loop: ChannelLoop, stream: Http2Stream, handler: ChannelHandler): ChannelId {
  return new StreamCarrier(loop, stream, handler).channel;
}

/** How long the far side may take to end its direction of a stream after ours has ended and nobody listens, in ms. */
const CLOSE_PATIENCE = 10_000;

class StreamCarrier implements Carrier, StreamHandler {
  readonly channel: ChannelId;
  readonly #loop: ChannelLoop;
  readonly #stream: Http2Stream;
  /** Delivered and not returned as credit. */
  #uncredited = 0;
  #closing: Patience | null = null;

  constructor(loop: ChannelLoop, stream: Http2Stream, handler: ChannelHandler) {
    this.#loop = loop;
    this.#stream = stream;
    this.channel = loop.openMemory(handler, this);
    stream.handler = this;
  }

  // The channel's side.

  output(): void {
    const stream = this.#stream;
    const portion = this.#loop.scratchSize - FRAME_HEADER_SIZE;
    while (!stream.closed) {
      const room = Math.min(stream.sendable(), portion);
      if (room === 0) {
        stream.waitForWindow();
        return;
      }
      const taken = this.#loop.take(this.channel, FRAME_HEADER_SIZE, room);
      if (taken === 0) return;
      stream.send(FRAME_HEADER_SIZE, taken);
    }
  }

  outputEnded(): void {
    this.#stream.end();
  }

  gone(reset: boolean): void {
    const stream = this.#stream;
    if (stream.closed) return;
    if (reset) {
      stream.reset(ErrorCode.CONNECT_ERROR);
      return;
    }
    stream.end();
    if (stream.remoteEnded) return;
    this.#closing = new Patience(CLOSE_PATIENCE, () => stream.reset(ErrorCode.CANCEL)).unref();
  }

  // The stream's side.

  streamResponse(): void {}

  /** What the channel holds is bounded by the windows of the connection in it: it is always read. */
  streamData(offset: number, length: number): void {
    const stream = this.#stream;
    this.#loop.deliver(this.channel, offset, length);
    this.#uncredited += length;
    if (this.#uncredited < stream.creditThreshold) return;
    stream.credit(this.#uncredited);
    this.#uncredited = 0;
  }

  streamEnded(): void {
    this.#settle();
    this.#loop.deliverEnd(this.channel);
  }

  streamReset({ code }: StreamReset): void {
    this.#settle();
    // RFC 9113 §8.1: the far side has said everything and wants to hear no more.
    if (this.#stream.remoteEnded && code === ErrorCode.NO_ERROR) return;
    this.#loop.deliverReset(this.channel);
  }

  streamWritable(): void {
    this.output();
  }

  #settle(): void {
    this.#closing?.end();
    this.#closing = null;
  }
}

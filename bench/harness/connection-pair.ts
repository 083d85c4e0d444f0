/** Two HTTP/2 connections that talk to each other in memory. */
import {
  Http2Connection,
  type Http2Events,
  type Http2Options,
  type Http2Transport,
} from '../../src/hbone/connection.ts';
import { FRAME_HEADER_SIZE, FrameType, writeFrameHeader } from '../../src/hbone/frames.ts';
import type { HeaderField } from '../../src/hbone/hpack.ts';
import type { Http2Stream, StreamHandler } from '../../src/hbone/stream.ts';
import { WindowBudget } from '../../src/hbone/window-budget.ts';

/** Counts what is written and carries it to the connection at the other end, if there is one. */
class Wire implements Http2Transport {
  readonly memory = new Uint8Array(512 * 1024);
  readonly scratchSize = 64 * 1024;
  peer: { readonly wire: Wire; readonly connection: () => Http2Connection } | null = null;
  #pending = new Uint8Array(64 * 1024);
  #length = 0;

  write(offset: number, length: number): number {
    if (this.peer === null) return 0;
    this.#pending.set(this.memory.subarray(offset, offset + length), this.#length);
    this.#length += length;
    return 0;
  }

  writeData(streamId: number, flags: number, offset: number, length: number): number {
    writeFrameHeader(this.memory, offset - FRAME_HEADER_SIZE, length, FrameType.DATA, flags, streamId);
    return this.write(offset - FRAME_HEADER_SIZE, FRAME_HEADER_SIZE + length);
  }

  /** Delivers what was written. False when there was nothing. */
  deliver(): boolean {
    const { peer } = this;
    if (peer === null || this.#length === 0) return false;
    const length = this.#length;
    this.#length = 0;
    peer.wire.memory.set(this.#pending.subarray(0, length), this.scratchSize);
    peer.connection().receive(this.scratchSize, length);
    return true;
  }

  flush(): number {
    return 0;
  }

  close(): void {
    throw new Error('the connection has ended');
  }
}

/** Takes what comes, as a relay whose application keeps up. */
export class Reader implements StreamHandler {
  stream: Http2Stream | null = null;
  #taken = 0;

  streamData(_offset: number, length: number): void {
    const stream = this.stream!;
    this.#taken += length;
    if (this.#taken < stream.creditThreshold) return;
    stream.credit(this.#taken);
    this.#taken = 0;
  }

  streamResponse(): void {}
  streamEnded(): void {
    this.stream?.end();
  }
  streamReset(): void {}
  streamWritable(): void {}
}

export interface ConnectionPair {
  readonly client: Http2Connection;
  readonly server: Http2Connection;
  readonly serverWire: Wire;
  readonly accepted: Http2Stream[];
  talk(): void;
}

/** A client and a server that are done with their prefaces. The server answers every request at once. */
export function connectionPair(answer: readonly HeaderField[]): ConnectionPair {
  const accepted: Http2Stream[] = [];
  const events: Http2Events = {
    request(stream) {
      const reader = new Reader();
      reader.stream = stream;
      accepted.push(stream);
      stream.respond(answer, false);
      return reader;
    },
    goingAway() {},
    streamClosed() {},
    closed() {},
  };
  const [clientWire, serverWire] = [new Wire(), new Wire()];
  const budget = new WindowBudget(2 ** 40);
  const options: Omit<Http2Options, 'role'> = {
    initialWindow: 256 * 1024,
    maxWindow: 4 * 1024 * 1024,
    connectionWindow: 16 * 1024 * 1024,
    maxFrameSize: 1024 * 1024,
    maxHeaderListSize: 65_536,
    maxConcurrentStreams: 200,
    assumedPeerStreams: 200,
    budget,
    breached() {},
    now: () => performance.now(),
  };
  clientWire.peer = { wire: serverWire, connection: () => server };
  serverWire.peer = { wire: clientWire, connection: () => client };
  const client: Http2Connection = new Http2Connection(clientWire, { ...options, role: 'client' }, events);
  const server: Http2Connection = new Http2Connection(serverWire, { ...options, role: 'server' }, events);
  const talk = () => {
    while ([clientWire.deliver(), serverWire.deliver()].includes(true));
  };
  talk();
  return { client, server, serverWire, accepted, talk };
}

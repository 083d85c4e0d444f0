import { CulvertError } from '../../../../src/errors.ts';
import { FrameFlag, SettingId } from '../../../../src/hbone/frames.ts';
import { type DialEvents, type TunnelKey, TunnelPool, type TunnelPoolOptions } from '../../../../src/hbone/pool.ts';
import type { Http2Stream } from '../../../../src/hbone/stream.ts';
import { ConnectionUnderTest, connectTo, responseFrame } from './connection-under-test.ts';

export const KEY: TunnelKey = {
  source: 'spiffe://td/ns/a/sa/a',
  expected: ['spiffe://td/ns/b/sa/b'],
  ip: '10.0.0.1',
  port: 15008,
  pod: 'uid-a',
};

/** A pool whose dials wait until the test decides how they end. */
export class PoolUnderTest {
  readonly pool: TunnelPool;
  readonly dials: { readonly key: TunnelKey; readonly events: DialEvents }[] = [];
  readonly counted: string[] = [];
  now = 1000;

  constructor(options: Partial<TunnelPoolOptions> = {}) {
    this.pool = new TunnelPool({
      maxStreams: 2,
      idleTimeout: 60_000,
      maxAge: 0,
      now: () => this.now,
      random: () => 0,
      dial: (key, events) => void this.dials.push({ key, events }),
      count: (result) => void this.counted.push(result),
      ...options,
    });
  }

  /** Asks for a tunnel and opens a stream in it. */
  request(key: TunnelKey = KEY): Requester {
    const requester = new Requester();
    this.pool.request(key, requester);
    return requester;
  }

  /** The oldest dial succeeds; the peer's SETTINGS come after the first streams, as over a network. */
  open(): Tunnel {
    const tunnel = new Tunnel(this.pool);
    this.dials.shift()!.events.opened(tunnel.connection);
    if (!tunnel.transport.closed) tunnel.established();
    return tunnel;
  }

  /** The same with a peer that has said how many streams it takes. */
  openLimited(streams: number): Tunnel {
    const tunnel = new Tunnel(this.pool).established([[SettingId.MAX_CONCURRENT_STREAMS, streams]]);
    this.dials.shift()!.events.opened(tunnel.connection);
    return tunnel;
  }

  fail(code = 'ECONNREFUSED'): void {
    this.dials.shift()!.events.failed(new CulvertError(code, 'no way'));
  }
}

/** A client connection that reports to the pool as dialled ones do. */
export class Tunnel extends ConnectionUnderTest {
  constructor(pool: TunnelPool) {
    super(
      'client',
      {},
      {
        goingAway: () => pool.retired(this.connection),
        streamClosed: () => pool.streamClosed(this.connection),
        closed: () => pool.closed(this.connection),
      },
    );
  }

  /** Ends a stream from both sides. */
  finish(stream: Http2Stream): void {
    this.receive(responseFrame(stream.id, 200, FrameFlag.END_STREAM));
    stream.end();
  }
}

export class Requester {
  isOver = false;
  stream: Http2Stream | null = null;
  error: CulvertError | null = null;
  reset = '';

  /** Which tunnel it got; null while it waits. */
  connection: ConnectionUnderTest['connection'] | null = null;

  tunnel(connection: ConnectionUnderTest['connection']): void {
    this.connection = connection;
    this.stream = connection.open(connectTo('10.0.0.1:80'), {
      streamResponse() {},
      streamData() {},
      streamEnded() {},
      streamReset: ({ unprocessed }) => {
        this.reset = unprocessed ? 'unprocessed' : 'processed';
      },
      streamWritable() {},
    });
  }

  noTunnel(error: CulvertError): void {
    this.error = error;
  }
}

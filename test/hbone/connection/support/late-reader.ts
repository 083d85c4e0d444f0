import { FrameType } from '../../../../src/hbone/frames.ts';
import type { Http2Stream } from '../../../../src/hbone/stream.ts';
import { ConnectionUnderTest, connectFrame, frame, type Role, words } from './connection-under-test.ts';

const KB = 1024;

/** A receive window: what the sender still has of it, and what was read and is not returned. */
interface Window {
  left: number;
  read: number;
  readonly size: number;
}

/** When an implementation returns credit for what was read. */
export const RETURNS = {
  'h2, as ztunnel': ({ read, left }: Window) => read >= left / 2,
  'net/http2 of Go': ({ read, left }: Window) => read >= 4 * KB || read >= left,
  nghttp2: ({ read, size }: Window) => read >= Math.floor(size / 2),
  Netty: ({ read, size }: Window) => size - read <= size / 2,
  'nghttp2, one byte more': ({ read, size }: Window) => read > size / 2,
};

interface Received extends Window {
  /** Received and not read. */
  backlog: number;
  /** Bytes that are read in a step. */
  speed: number;
  total: number;
}

interface Step {
  readonly frames: ReturnType<ConnectionUnderTest['frames']>;
  readonly credit: Buffer[];
}

/** A peer that returns credit, that of the connection too, only for what its readers have taken, and some steps later. */
export class LateReader {
  readonly sender: ConnectionUnderTest;
  readonly #role: Role;
  readonly #isDue: (window: Window) => boolean;
  readonly #connection: Window;
  readonly #streamSize: number;
  readonly #streams = new Map<number, Received>();
  readonly #onTheWay: Step[];

  /** `delay`: steps until what is sent arrives. `role` is that of the sender. */
  constructor(
    isDue: (window: Window) => boolean,
    windows: { stream: number; connection: number },
    delay = 0,
    role: Role = 'client',
  ) {
    this.sender = new ConnectionUnderTest(role).established([[4, windows.stream]]);
    const more = windows.connection - 65_535;
    if (more > 0) this.sender.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(more)));
    this.sender.frames();
    this.#role = role;
    this.#isDue = isDue;
    this.#connection = { left: windows.connection, read: 0, size: windows.connection };
    this.#streamSize = windows.stream;
    this.#onTheWay = Array.from({ length: delay }, () => ({ frames: [], credit: [] }));
  }

  /** A stream with an application behind it that has `give`n it bytes, read at a speed in bytes a step. */
  upload(speed: number) {
    const { stream, recorder } = this.#role === 'client' ? this.sender.open() : this.#requested();
    this.sender.frames();
    this.#streams.set(stream.id, {
      left: this.#streamSize,
      read: 0,
      size: this.#streamSize,
      backlog: 0,
      speed,
      total: 0,
    });
    // The answer to the CONNECT.
    if (this.#role === 'client') this.sender.receive(frame(FrameType.HEADERS, 4, stream.id, Buffer.from([0x88])));
    let given = 0;
    const send = () => {
      for (let now = -1; given > 0 && now !== 0; given -= now) now = this.sender.send(stream, Math.min(given, 64 * KB));
    };
    recorder.onWritable = send;
    return {
      stream,
      give: (bytes: number) => {
        given += bytes;
        send();
      },
    };
  }

  /** A stream that the peer has opened, for a download. */
  #requested() {
    this.sender.receive(connectFrame(2 * this.sender.requests.length + 1));
    const request = this.sender.requests.at(-1)!;
    request.stream.respond([[':status', '200']], false);
    return request;
  }

  /** An application answers on the stream. */
  answer(stream: Http2Stream): void {
    this.sender.receive(frame(FrameType.DATA, 0, stream.id, Buffer.alloc(100)));
  }

  taken(stream: Http2Stream): number {
    const { total, backlog } = this.#streams.get(stream.id)!;
    return total - backlog;
  }

  /** What was sent arrives, is read, and credit comes back. */
  step(): void {
    this.#onTheWay.push({ frames: this.sender.frames(), credit: [] });
    const { frames, credit } = this.#onTheWay.shift()!;
    if (credit.length > 0) this.sender.receive(...credit);
    for (const { type, streamId, payload } of frames) {
      const stream = this.#streams.get(streamId);
      if (type !== FrameType.DATA || stream === undefined) continue;
      for (const window of [stream, this.#connection]) window.left -= payload.length;
      stream.backlog += payload.length;
      stream.total += payload.length;
    }
    const returned: Buffer[] = [];
    for (const [id, stream] of this.#streams) {
      const now = Math.min(stream.speed, stream.backlog);
      stream.backlog -= now;
      for (const [window, of] of [
        [stream, id],
        [this.#connection, 0],
      ] as const) {
        window.read += now;
        if (window.read === 0 || !this.#isDue(window)) continue;
        returned.push(frame(FrameType.WINDOW_UPDATE, 0, of, words(window.read)));
        window.left += window.read;
        window.read = 0;
      }
    }
    if (this.#onTheWay.length === 0) this.sender.receive(...returned);
    else this.#onTheWay.at(-1)!.credit.push(...returned);
  }

  /** What a tunnel does every second. */
  second(): void {
    this.sender.now += 1000;
    this.sender.connection.keepAlive(1e9, 1e9);
  }
}

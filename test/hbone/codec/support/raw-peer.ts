import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type { SettingId } from '../../../../src/hbone/frames.ts';
import {
  CLIENT_PREFACE,
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
  headersSize,
  writeHeaders,
  writePing,
  writeSettings,
  writeSettingsAck,
} from '../../../../src/hbone/frames.ts';

export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Uint8Array;
}

/** One end of an HTTP/2 connection in which the test writes and reads single frames, the other end being node:http2. */
export interface RawPeer {
  /** The next frame, in order; null once the other side has closed. */
  nextFrame(): Promise<RawFrame | null>;
  sendPreface(): void;
  sendSettings(settings: ReadonlyArray<readonly [SettingId, number]>): void;
  sendSettingsAck(): void;
  sendHeaders(streamId: number, block: Uint8Array, maxFrameSize: number): void;
  sendPing(): void;
  close(): void;
}

/** Speaks on `socket`; when `expectPreface` the other side is a client, whose preface is taken off first. */
export function rawPeer(socket: Duplex, expectPreface: boolean): RawPeer {
  let buffered = Buffer.alloc(0);
  let ended = false;
  let toSkip = expectPreface ? CLIENT_PREFACE.length : 0;
  const wake = () => socket.emit('raw-peer');
  socket.on('data', (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk]);
    wake();
  });
  for (const event of ['end', 'close', 'error']) {
    socket.on(event, () => {
      ended = true;
      wake();
    });
  }
  const send = (size: number, write: (out: Uint8Array) => number) => {
    const out = new Uint8Array(size);
    const written = write(out);
    if (!socket.destroyed) socket.write(out.subarray(0, written));
  };
  const takeFrame = (): RawFrame | null => {
    if (buffered.length < toSkip + FRAME_HEADER_SIZE) return null;
    buffered = buffered.subarray(toSkip);
    toSkip = 0;
    const end = FRAME_HEADER_SIZE + frameLength(buffered, 0);
    if (buffered.length < end) return null;
    const frame = {
      type: frameType(buffered, 0),
      flags: frameFlags(buffered, 0),
      streamId: frameStreamId(buffered, 0),
      payload: buffered.subarray(FRAME_HEADER_SIZE, end),
    };
    buffered = buffered.subarray(end);
    return frame;
  };
  return {
    nextFrame: async () => {
      for (;;) {
        const frame = takeFrame();
        if (frame !== null) return frame;
        if (ended) return null;
        await once(socket, 'raw-peer');
      }
    },
    sendPreface: () => void socket.write(CLIENT_PREFACE),
    sendSettings: (settings) => send(9 + settings.length * 6, (out) => writeSettings(out, 0, settings)),
    sendSettingsAck: () => send(9, (out) => writeSettingsAck(out, 0)),
    sendHeaders: (streamId, block, maxFrameSize) =>
      send(headersSize(block.length, maxFrameSize), (out) =>
        writeHeaders(out, 0, streamId, true, block, 0, block.length, maxFrameSize),
      ),
    sendPing: () => send(17, (out) => writePing(out, 0, false, new Uint8Array(8), 0)),
    close: () => void socket.destroy(),
  };
}

/** Reads frames until a whole header block has come; other frames go to `other`. Null when the other side has closed. */
export async function nextBlock(
  peer: RawPeer,
  other: (frame: RawFrame) => void,
): Promise<{ streamId: number; block: Uint8Array } | null> {
  const fragments: Uint8Array[] = [];
  for (;;) {
    const frame = await peer.nextFrame();
    if (frame === null) return null;
    if (frame.type !== FrameType.HEADERS && frame.type !== FrameType.CONTINUATION) {
      other(frame);
      continue;
    }
    const skip = frame.type === FrameType.HEADERS && (frame.flags & FrameFlag.PRIORITY) !== 0 ? 5 : 0;
    fragments.push(frame.payload.subarray(skip));
    if ((frame.flags & FrameFlag.END_HEADERS) !== 0)
      return { streamId: frame.streamId, block: Buffer.concat(fragments) };
  }
}

import { FrameFlag, FrameType, SettingId } from '../../../../src/hbone/frames.ts';
import type { HeaderField } from '../../../../src/hbone/hpack.ts';
import type { ErrorCodeName } from '../../../../src/hbone/http-error.ts';
import type { Random } from '../../codec/support/random.ts';
import { frame, settingsFrame, words } from './connection-under-test.ts';
import type { ModelPeer, ModelStream } from './model-peer.ts';

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } =
  FrameType;
const { ACK, END_STREAM, END_HEADERS, PADDED } = FrameFlag;

/** What a peer does wrong, and the error that RFC 9113 asks for. */
export interface Breach {
  readonly what: string;
  readonly frames: readonly Buffer[];
  readonly code: ErrorCodeName;
  /** The stream that it ends; null for the connection. */
  readonly streamId: number | null;
}

type Row = readonly [what: string, code: ErrorCodeName, make: (random: Random) => Buffer[]];

const octets = (random: Random, length: number) => Buffer.from(random.octets(length));
/** A length from 0 on that is not the one allowed. */
const wrongLength = (random: Random, right: number) => {
  const length = random.int(30);
  return length === right ? right + 1 : length;
};
const someId = (random: Random) => 1 + random.int(40);
/** A stream that nobody has opened. */
const idle = (random: Random) => 100_001 + 2 * random.int(1000);

const OF_CONNECTION: readonly Row[] = [
  ['DATA on stream 0', 'PROTOCOL_ERROR', (r) => [frame(DATA, 0, 0, octets(r, r.int(20)))]],
  ['DATA on an idle stream', 'PROTOCOL_ERROR', (r) => [frame(DATA, 0, idle(r), octets(r, r.int(20)))]],
  ['HEADERS on stream 0', 'PROTOCOL_ERROR', () => [frame(HEADERS, END_HEADERS, 0)]],
  ['PRIORITY on stream 0', 'PROTOCOL_ERROR', (r) => [frame(PRIORITY, 0, 0, octets(r, 5))]],
  ['RST_STREAM on stream 0', 'PROTOCOL_ERROR', () => [frame(RST_STREAM, 0, 0, words(8))]],
  ['RST_STREAM on an idle stream', 'PROTOCOL_ERROR', (r) => [frame(RST_STREAM, 0, idle(r), words(8))]],
  [
    'RST_STREAM of a wrong length',
    'FRAME_SIZE_ERROR',
    (r) => [frame(RST_STREAM, 0, someId(r), octets(r, wrongLength(r, 4)))],
  ],
  ['SETTINGS on a stream', 'PROTOCOL_ERROR', (r) => [frame(SETTINGS, 0, someId(r))]],
  [
    'SETTINGS of a wrong length',
    'FRAME_SIZE_ERROR',
    (r) => [frame(SETTINGS, 0, 0, octets(r, 6 * r.int(5) + 1 + r.int(5)))],
  ],
  ['an acknowledgement with a payload', 'FRAME_SIZE_ERROR', (r) => [frame(SETTINGS, ACK, 0, octets(r, 6))]],
  [
    'a window that is too large in SETTINGS',
    'FLOW_CONTROL_ERROR',
    (r) => [settingsFrame([[SettingId.INITIAL_WINDOW_SIZE, 0x8000_0000 + r.int(1 << 30)]])],
  ],
  [
    'a frame size out of range in SETTINGS',
    'PROTOCOL_ERROR',
    (r) => [settingsFrame([[SettingId.MAX_FRAME_SIZE, r.pick([0, 16_383, 1 << 24])]])],
  ],
  ['ENABLE_PUSH of 2', 'PROTOCOL_ERROR', () => [settingsFrame([[SettingId.ENABLE_PUSH, 2]])]],
  ['PUSH_PROMISE', 'PROTOCOL_ERROR', (r) => [frame(PUSH_PROMISE, END_HEADERS, someId(r), words(2))]],
  ['PING on a stream', 'PROTOCOL_ERROR', (r) => [frame(PING, r.int(2), someId(r), octets(r, 8))]],
  ['PING of a wrong length', 'FRAME_SIZE_ERROR', (r) => [frame(PING, r.int(2), 0, octets(r, wrongLength(r, 8)))]],
  ['GOAWAY on a stream', 'PROTOCOL_ERROR', (r) => [frame(GOAWAY, 0, someId(r), octets(r, 8))]],
  ['GOAWAY that is too short', 'FRAME_SIZE_ERROR', (r) => [frame(GOAWAY, 0, 0, octets(r, r.int(8)))]],
  ['WINDOW_UPDATE of 0', 'PROTOCOL_ERROR', () => [frame(WINDOW_UPDATE, 0, 0, words(0))]],
  [
    'WINDOW_UPDATE of a wrong length',
    'FRAME_SIZE_ERROR',
    (r) => [frame(WINDOW_UPDATE, 0, r.pick([0, someId(r)]), octets(r, wrongLength(r, 4)))],
  ],
  ['WINDOW_UPDATE on an idle stream', 'PROTOCOL_ERROR', (r) => [frame(WINDOW_UPDATE, 0, idle(r), words(1))]],
  [
    'a window of the connection beyond 2^31-1',
    'FLOW_CONTROL_ERROR',
    () => [frame(WINDOW_UPDATE, 0, 0, words(0x7fff_ffff)), frame(WINDOW_UPDATE, 0, 0, words(0x7fff_ffff))],
  ],
  ['CONTINUATION without HEADERS', 'PROTOCOL_ERROR', (r) => [frame(CONTINUATION, END_HEADERS, someId(r))]],
];

const OF_CLIENT: readonly Row[] = [
  ['a request on an even stream', 'PROTOCOL_ERROR', (r) => [frame(HEADERS, END_HEADERS, idle(r) + 1, octets(r, 0))]],
  [
    'a header block that another frame interrupts',
    'PROTOCOL_ERROR',
    (r) => [
      frame(HEADERS, 0, idle(r)),
      r.pick([frame(PING, 0, 0, octets(r, 8)), frame(0x77, 0, 0), frame(DATA, 0, 1)]),
    ],
  ],
  [
    'a header block that goes on on another stream',
    'PROTOCOL_ERROR',
    (r) => [frame(HEADERS, 0, 100_001), frame(CONTINUATION, END_HEADERS, 100_003, octets(r, 3))],
  ],
  [
    'a header block that is not HPACK',
    'COMPRESSION_ERROR',
    (r) => [
      frame(
        HEADERS,
        END_HEADERS,
        idle(r),
        r.pick([Buffer.of(0x80), Buffer.of(0xff), Buffer.of(0x41, 0x85), Buffer.of(0x3f, 0xff, 0xff, 0x7f)]),
      ),
    ],
  ],
  [
    'padding that is longer than its frame',
    'PROTOCOL_ERROR',
    (r) => [frame(HEADERS, END_HEADERS | PADDED, idle(r), Buffer.of(1 + r.int(255)))],
  ],
];

const OF_SERVER: readonly Row[] = [
  [
    'an answer to a request that was not made',
    'PROTOCOL_ERROR',
    (r) => [frame(HEADERS, END_HEADERS, idle(r), Buffer.of(0x88))],
  ],
  ['a stream of its own', 'PROTOCOL_ERROR', (r) => [frame(HEADERS, END_HEADERS, 2 + 2 * r.int(50), Buffer.of(0x88))]],
];

const MALFORMED: readonly HeaderField[][] = [
  [[':method', 'CONNECT']],
  [[':authority', 'a:1']],
  [
    [':method', 'CONNECT'],
    [':authority', 'a:1'],
    [':path', '/'],
  ],
  [
    [':method', 'CONNECT'],
    [':authority', 'a:1'],
    ['Upper', 'x'],
  ],
  [
    [':method', 'CONNECT'],
    [':authority', 'a:1'],
    ['x', 'a\r\nb'],
  ],
  [
    ['x', 'y'],
    [':method', 'CONNECT'],
    [':authority', 'a:1'],
  ],
  [
    [':method', 'CONNECT'],
    [':method', 'CONNECT'],
    [':authority', 'a:1'],
  ],
  [
    [':method', 'CONNECT'],
    [':authority', 'a:1'],
    ['connection', 'close'],
  ],
];

/** A breach that is possible in this state: all that was said has arrived on both sides. */
export function randomBreach(random: Random, model: ModelPeer, isClient: boolean): Breach {
  const rows: (() => Breach | null)[] = [
    () => fromRow(random, [...OF_CONNECTION, ...(isClient ? OF_CLIENT : OF_SERVER)]),
    () => ofStream(random, model, isClient),
  ];
  if (isClient) rows.push(() => malformedRequest(random, model));
  for (;;) {
    const breach = random.pick(rows)();
    if (breach !== null) return breach;
  }
}

function fromRow(random: Random, rows: readonly Row[]): Breach {
  const [what, code, make] = random.pick(rows);
  return { what, code, frames: make(random), streamId: null };
}

function malformedRequest(random: Random, model: ModelPeer): Breach {
  const fields = random.pick(MALFORMED);
  const streamId = model.takeId();
  const what = `a malformed request: ${JSON.stringify(fields)}`;
  const flags = END_HEADERS | random.pick([0, END_STREAM]);
  const frames = [frame(HEADERS, flags, streamId, model.encode(fields))];
  return { what, code: 'PROTOCOL_ERROR', frames, streamId };
}

/** On a stream that is open; null when there is none in the state that it takes. */
function ofStream(random: Random, model: ModelPeer, isClient: boolean): Breach | null {
  const open = [...model.streams.values()].filter(({ begun, reset }) => begun && !reset);
  const halfClosed = open.filter(({ ended, endedByOther }) => ended && !endedByOther);
  const sending = open.filter(({ ended }) => !ended);
  const on = (streams: readonly ModelStream[], make: (stream: ModelStream) => Omit<Breach, 'streamId'> | null) => {
    if (streams.length === 0) return null;
    const stream = random.pick(streams);
    const breach = make(stream);
    return breach === null ? null : { ...breach, streamId: stream.id };
  };
  switch (random.int(6)) {
    case 0:
      return on(sending, ({ id }) => ({
        what: 'WINDOW_UPDATE of 0',
        code: 'PROTOCOL_ERROR',
        frames: [frame(WINDOW_UPDATE, 0, id, words(0))],
      }));
    case 1:
      return on(sending, ({ id }) => ({
        what: 'a window of a stream beyond 2^31-1',
        code: 'FLOW_CONTROL_ERROR',
        frames: Array.from({ length: 3 }, () => frame(WINDOW_UPDATE, 0, id, words(0x7fff_ffff))),
      }));
    case 2:
      return on(sending, ({ id }) => ({
        what: 'trailers without END_STREAM',
        code: 'PROTOCOL_ERROR',
        frames: [frame(HEADERS, END_HEADERS, id, model.encode([['x', 'y']]))],
      }));
    case 3:
      return on(halfClosed, ({ id }) => ({
        what: 'a frame after END_STREAM',
        code: 'STREAM_CLOSED',
        frames: [
          isClient && random.chance(0.5)
            ? frame(HEADERS, END_HEADERS | END_STREAM, id, model.encode([['x', 'y']]))
            : frame(DATA, 0, id, octets(random, random.int(10))),
        ],
      }));
    case 4:
      // One byte more than the window, in frames as large as allowed.
      return on(sending, (stream) => {
        const total = Math.max(0, stream.sendWindow) + 1;
        if (!model.hasAcknowledged || total > model.sendWindow) return null;
        const most = model.theirs.maxFrameSize;
        const lengths = Array.from({ length: Math.ceil(total / most) }, (_, i) => Math.min(most, total - i * most));
        return {
          what: 'one byte more than the window of the stream',
          code: 'FLOW_CONTROL_ERROR',
          frames: lengths.map((length) => frame(DATA, 0, stream.id, model.content(stream, length))),
        };
      });
    default: {
      const length = model.sendWindow + 1;
      if (open.length === 0 || length > model.theirs.maxFrameSize) return null;
      return {
        what: 'one byte more than the window of the connection',
        code: 'FLOW_CONTROL_ERROR',
        frames: [frame(DATA, 0, random.pick(open).id, Buffer.alloc(length))],
        streamId: null,
      };
    }
  }
}

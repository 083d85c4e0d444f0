import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import {
  block,
  connectFrame,
  connectTo,
  frame,
  settingsFrame,
  words,
} from '../connection/support/connection-under-test.ts';
import {
  answered,
  conformance,
  connectionError,
  headers,
  IGNORED,
  padded,
  type Rule,
  streamError,
} from './support/conformance.ts';

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } =
  FrameType;
const { ACK, END_STREAM, END_HEADERS, PADDED, PRIORITY: HAS_PRIORITY } = FrameFlag;

const NINE = Buffer.alloc(9);
const REQUEST = block(connectTo('10.0.0.1:80'));
const TRAILERS = block([['grpc-status', '0']]);
const MAX_FRAME = 1024 * 1024;

const FRAMES: readonly Rule[] = [
  { section: '§4.1', what: 'a frame of an unknown type', steps: [frame(0x42, 0xff, 1, NINE)], verdict: IGNORED },
  {
    section: '§4.1',
    what: 'a frame of an unknown type on stream 0',
    steps: [frame(0xff, 0xff, 0, NINE)],
    verdict: IGNORED,
  },
  {
    section: '§4.1',
    what: 'flags that have no meaning for their frame',
    steps: [frame(PING, 0xfe, 0, Buffer.alloc(8)), frame(WINDOW_UPDATE, 0xff, 1, words(1))],
    verdict: answered('PING ACK'),
  },
  {
    section: '§4.1',
    what: 'a reserved bit before the stream id',
    steps: [frame(DATA, 0, 1, NINE), withReservedBit(frame(DATA, 0, 1, NINE))],
    verdict: IGNORED,
  },
  {
    section: '§4.2',
    what: 'DATA larger than announced',
    steps: [frame(DATA, 0, 1, Buffer.alloc(MAX_FRAME + 1))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§4.2',
    what: 'an unknown frame larger than announced',
    steps: [frame(0x42, 0, 1, Buffer.alloc(MAX_FRAME + 1))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§4.3',
    what: 'a header block that is not HPACK',
    steps: [frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.from([0xff]))],
    verdict: connectionError('COMPRESSION_ERROR'),
  },
  {
    section: '§4.3',
    what: 'a header block that is not HPACK on a stream that it has reset',
    steps: [({ stream }) => stream.reset(8), frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.from([0x80]))],
    verdict: connectionError('COMPRESSION_ERROR'),
  },
];

const DATA_FRAMES: readonly Rule[] = [
  { section: '§6.1', what: 'DATA', steps: [frame(DATA, 0, 1, NINE)], verdict: IGNORED },
  { section: '§6.1', what: 'DATA with padding', steps: [frame(DATA, PADDED, 1, padded(NINE, 200))], verdict: IGNORED },
  {
    section: '§6.1',
    what: 'DATA that is all padding',
    steps: [frame(DATA, PADDED, 1, padded(Buffer.alloc(0), 9))],
    verdict: IGNORED,
  },
  {
    section: '§6.1',
    what: 'DATA on stream 0',
    steps: [frame(DATA, 0, 0, NINE)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.1',
    what: 'padding as long as the frame',
    steps: [frame(DATA, PADDED, 1, Buffer.from([9, 0, 0, 0, 0, 0, 0, 0, 0]))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.1',
    what: 'padded DATA without a pad length',
    steps: [frame(DATA, PADDED, 1)],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
];

const HEADER_FRAMES: readonly Rule[] = [
  {
    section: '§6.2',
    what: 'HEADERS on stream 0',
    steps: [connectFrame(0)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.2',
    what: 'HEADERS with more padding than frame',
    steps: [frame(HEADERS, END_HEADERS | PADDED, 1, Buffer.from([2, 0]))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.2',
    what: 'padded HEADERS without a pad length',
    steps: [frame(HEADERS, END_HEADERS | PADDED, 1)],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.2',
    what: 'HEADERS too short for its priority fields',
    steps: [frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, Buffer.alloc(4))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.2',
    what: 'HEADERS whose padding leaves no room for the priority fields',
    steps: [frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, padded(Buffer.alloc(4), 3))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.2',
    what: 'a request with padding and priority, of a stream that depends on itself',
    role: 'server',
    steps: [
      frame(
        HEADERS,
        END_HEADERS | PADDED | HAS_PRIORITY,
        3,
        padded(Buffer.concat([Buffer.from([0x80, 0, 0, 3, 255]), REQUEST]), 255),
      ),
      frame(DATA, 0, 3, NINE),
    ],
    verdict: IGNORED,
  },
  {
    section: '§6.2',
    what: 'another frame inside a header block',
    steps: [frame(HEADERS, END_STREAM, 1, TRAILERS), frame(PING, 0, 0, Buffer.alloc(8))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.5',
    what: 'an unknown frame inside a header block',
    steps: [frame(HEADERS, END_STREAM, 1, TRAILERS), frame(0x42, 0, 1)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.2',
    what: 'HEADERS inside a header block',
    steps: [frame(HEADERS, END_STREAM, 1, TRAILERS), frame(HEADERS, END_HEADERS, 1)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.10',
    what: 'a header block in HEADERS and CONTINUATION, some of them empty',
    steps: [
      frame(HEADERS, END_STREAM, 1),
      frame(CONTINUATION, 0, 1, TRAILERS.subarray(0, 2)),
      frame(CONTINUATION, 0, 1),
      frame(CONTINUATION, END_HEADERS, 1, TRAILERS.subarray(2)),
    ],
    verdict: IGNORED,
  },
  {
    section: '§6.10',
    what: 'CONTINUATION without HEADERS',
    steps: [frame(CONTINUATION, END_HEADERS, 1)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.10',
    what: 'CONTINUATION after the end of the header block',
    steps: [headers(1, [['a', 'b']], END_STREAM), frame(CONTINUATION, END_HEADERS, 1)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.10',
    what: 'CONTINUATION of another stream',
    steps: [frame(HEADERS, END_STREAM, 1), frame(CONTINUATION, END_HEADERS, 3)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.10',
    what: 'CONTINUATION on stream 0',
    steps: [frame(CONTINUATION, END_HEADERS, 0)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
];

const CONTROL_FRAMES: readonly Rule[] = [
  { section: '§6.3', what: 'PRIORITY', steps: [frame(PRIORITY, 0, 1, Buffer.alloc(5))], verdict: IGNORED },
  {
    section: '§6.3',
    what: 'PRIORITY of an idle stream',
    steps: [frame(PRIORITY, 0, 51, Buffer.alloc(5))],
    verdict: IGNORED,
  },
  {
    section: '§6.3',
    what: 'PRIORITY of a closed stream',
    steps: [frame(RST_STREAM, 0, 1, words(8)), frame(PRIORITY, 0, 1, Buffer.alloc(5))],
    verdict: IGNORED,
  },
  {
    section: '§6.3',
    what: 'PRIORITY on stream 0',
    steps: [frame(PRIORITY, 0, 0, Buffer.alloc(5))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.3',
    what: 'PRIORITY of 4 octets',
    steps: [frame(PRIORITY, 0, 1, words(1))],
    verdict: streamError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.4',
    what: 'RST_STREAM on stream 0',
    steps: [frame(RST_STREAM, 0, 0, words(8))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.4',
    what: 'RST_STREAM of 5 octets',
    steps: [frame(RST_STREAM, 0, 1, Buffer.alloc(5))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.4',
    what: 'RST_STREAM twice',
    steps: [frame(RST_STREAM, 0, 1, words(8)), frame(RST_STREAM, 0, 1, words(8))],
    verdict: IGNORED,
  },
  {
    section: '§6.5',
    what: 'SETTINGS on a stream',
    steps: [frame(SETTINGS, 0, 1)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.5',
    what: 'SETTINGS of 5 octets',
    steps: [frame(SETTINGS, 0, 0, Buffer.alloc(5))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.5',
    what: 'an acknowledgement of SETTINGS with a payload',
    steps: [frame(SETTINGS, ACK, 0, Buffer.alloc(6))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.6',
    what: 'PUSH_PROMISE',
    steps: [frame(PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([words(2), REQUEST]))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  { section: '§6.7', what: 'PING', steps: [frame(PING, 0, 0, Buffer.from('12345678'))], verdict: answered('PING ACK') },
  {
    section: '§6.7',
    what: 'an acknowledgement of a PING that was not sent',
    steps: [frame(PING, ACK, 0, Buffer.from('12345678'))],
    verdict: IGNORED,
  },
  {
    section: '§6.7',
    what: 'PING on a stream',
    steps: [frame(PING, 0, 1, Buffer.alloc(8))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.7',
    what: 'PING of 9 octets',
    steps: [frame(PING, 0, 0, NINE)],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.7',
    what: 'PING of 7 octets',
    steps: [frame(PING, ACK, 0, Buffer.alloc(7))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.8',
    what: 'GOAWAY on a stream',
    steps: [frame(GOAWAY, 0, 1, words(0, 0))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.8',
    what: 'GOAWAY of 7 octets',
    steps: [frame(GOAWAY, 0, 0, Buffer.alloc(7))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.8',
    what: 'GOAWAY for more streams than the one before',
    role: 'client',
    steps: [frame(GOAWAY, 0, 0, words(1, 0)), frame(GOAWAY, 0, 0, words(3, 0))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
];

const WINDOW_UPDATES: readonly Rule[] = [
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 3 octets',
    steps: [frame(WINDOW_UPDATE, 0, 0, Buffer.alloc(3))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 5 octets on a stream',
    steps: [frame(WINDOW_UPDATE, 0, 1, Buffer.alloc(5))],
    verdict: connectionError('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 0 for the connection',
    steps: [frame(WINDOW_UPDATE, 0, 0, words(0))],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 0 for a stream',
    steps: [frame(WINDOW_UPDATE, 0, 1, words(0))],
    verdict: streamError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 0 and a reserved bit',
    steps: [frame(WINDOW_UPDATE, 0, 1, words(0x8000_0000))],
    verdict: streamError('PROTOCOL_ERROR'),
  },
  {
    section: '§6.9.1',
    what: 'WINDOW_UPDATE that takes the connection to 2^31-1',
    steps: [frame(WINDOW_UPDATE, 0, 0, words(0x7fff_ffff - 65_535))],
    verdict: IGNORED,
  },
  {
    section: '§6.9.1',
    what: 'WINDOW_UPDATE that takes the connection above 2^31-1',
    steps: [frame(WINDOW_UPDATE, 0, 0, words(0x7fff_ffff - 65_534))],
    verdict: connectionError('FLOW_CONTROL_ERROR'),
  },
  {
    section: '§6.9.1',
    what: 'WINDOW_UPDATE that takes a stream to 2^31-1',
    steps: [frame(WINDOW_UPDATE, 0, 1, words(0x7fff_ffff - 65_535))],
    verdict: IGNORED,
  },
  {
    section: '§6.9.1',
    what: 'WINDOW_UPDATE that takes a stream above 2^31-1',
    steps: [frame(WINDOW_UPDATE, 0, 1, words(0x7fff_ffff - 65_534))],
    verdict: streamError('FLOW_CONTROL_ERROR'),
  },
  {
    section: '§6.9.1',
    what: 'more DATA than the window of the stream',
    steps: [frame(DATA, 0, 1, Buffer.alloc(256 * 1024)), frame(DATA, 0, 1, Buffer.alloc(1))],
    verdict: streamError('FLOW_CONTROL_ERROR'),
  },
  {
    section: '§6.9.2',
    what: 'SETTINGS that take an open stream above 2^31-1',
    steps: [frame(WINDOW_UPDATE, 0, 1, words(0x7000_0000)), settingsFrame([[4, 0x7fff_ffff]])],
    verdict: connectionError('FLOW_CONTROL_ERROR'),
  },
];

conformance([...FRAMES, ...DATA_FRAMES, ...HEADER_FRAMES, ...CONTROL_FRAMES, ...WINDOW_UPDATES]);

function withReservedBit(bytes: Buffer): Buffer {
  bytes[5]! |= 0x80;
  return bytes;
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import type { HeaderField } from '../../../src/hbone/hpack.ts';
import {
  block,
  ConnectionUnderTest,
  connectFrame,
  connectTo,
  frame,
  responseFrame,
  settingsFrame,
  words,
} from './support/connection-under-test.ts';

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } =
  FrameType;
const { ACK, END_STREAM, END_HEADERS, PADDED } = FrameFlag;
const NINE = Buffer.alloc(9);

/** A request as a list; the connection goes on whatever is wrong with it. */
function requestFrame(streamId: number, fields: HeaderField[]): Buffer {
  return frame(HEADERS, END_HEADERS, streamId, block(fields));
}

interface Row {
  readonly section: string;
  readonly what: string;
  /** What the peer sends after prefaces and SETTINGS. A server has stream 1 open, a client too (and its answer). */
  readonly frames: readonly Buffer[];
  readonly said: readonly string[];
}

const GOAWAY_1 = (code: string) => [`GOAWAY ${code} (last 1)`];

const SERVER: readonly Row[] = [
  { section: '§4.1', what: 'a frame of an unknown type', frames: [frame(0x42, 0xff, 1, NINE)], said: [] },
  {
    section: '§4.2',
    what: 'a frame larger than announced',
    frames: [frame(DATA, 0, 1, Buffer.alloc(1024 * 1024 + 1))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  {
    section: '§4.3',
    what: 'a header block that is not HPACK',
    frames: [frame(HEADERS, END_HEADERS, 3, Buffer.from([0xff]))],
    said: GOAWAY_1('COMPRESSION_ERROR'),
  },
  {
    section: '§5.1',
    what: 'DATA on an idle stream',
    frames: [frame(DATA, 0, 3, NINE)],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1',
    what: 'RST_STREAM on an idle stream',
    frames: [frame(RST_STREAM, 0, 3, words(8))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1',
    what: 'WINDOW_UPDATE on an idle stream',
    frames: [frame(WINDOW_UPDATE, 0, 3, words(8))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  { section: '§5.1', what: 'PRIORITY on an idle stream', frames: [frame(PRIORITY, 0, 3, Buffer.alloc(5))], said: [] },
  {
    section: '§5.1',
    what: 'DATA after END_STREAM',
    frames: [frame(DATA, END_STREAM, 1), frame(DATA, 0, 1, NINE)],
    said: ['RST_STREAM 1 STREAM_CLOSED'],
  },
  {
    section: '§5.1',
    what: 'HEADERS after END_STREAM',
    frames: [frame(DATA, END_STREAM, 1), connectFrame(1, END_STREAM)],
    said: ['RST_STREAM 1 STREAM_CLOSED'],
  },
  {
    section: '§5.1',
    what: 'WINDOW_UPDATE after RST_STREAM',
    frames: [frame(RST_STREAM, 0, 1, words(8)), frame(WINDOW_UPDATE, 0, 1, words(8))],
    said: [],
  },
  {
    section: '§5.1',
    what: 'DATA on a stream that was reset',
    frames: [frame(RST_STREAM, 0, 1, words(8)), frame(DATA, 0, 1, NINE)],
    said: [],
  },
  {
    section: '§5.1.1',
    what: 'a request on an even stream',
    frames: [connectFrame(4)],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  { section: '§6.1', what: 'DATA on stream 0', frames: [frame(DATA, 0, 0, NINE)], said: GOAWAY_1('PROTOCOL_ERROR') },
  {
    section: '§6.1',
    what: 'padding as long as the frame',
    frames: [frame(DATA, PADDED, 1, Buffer.from([9, 0, 0, 0, 0, 0, 0, 0, 0]))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.1',
    what: 'padded DATA without a pad length',
    frames: [frame(DATA, PADDED, 1)],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  { section: '§6.2', what: 'HEADERS on stream 0', frames: [connectFrame(0)], said: GOAWAY_1('PROTOCOL_ERROR') },
  {
    section: '§6.2',
    what: 'HEADERS with more padding than frame',
    frames: [frame(HEADERS, END_HEADERS | PADDED, 3, Buffer.from([2, 0]))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.2',
    what: 'another frame inside a header block',
    frames: [frame(HEADERS, 0, 3, block(connectTo('a:1'))), frame(PING, 0, 0, Buffer.alloc(8))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.3',
    what: 'PRIORITY on stream 0',
    frames: [frame(PRIORITY, 0, 0, Buffer.alloc(5))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.3',
    what: 'PRIORITY of 4 octets',
    frames: [frame(PRIORITY, 0, 1, words(1))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.4',
    what: 'RST_STREAM on stream 0',
    frames: [frame(RST_STREAM, 0, 0, words(8))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.4',
    what: 'RST_STREAM of 5 octets',
    frames: [frame(RST_STREAM, 0, 1, Buffer.alloc(5))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  { section: '§6.5', what: 'SETTINGS on a stream', frames: [frame(SETTINGS, 0, 1)], said: GOAWAY_1('PROTOCOL_ERROR') },
  {
    section: '§6.5',
    what: 'SETTINGS of 5 octets',
    frames: [frame(SETTINGS, 0, 0, Buffer.alloc(5))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.5',
    what: 'an acknowledgement with a payload',
    frames: [frame(SETTINGS, ACK, 0, Buffer.alloc(6))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.6',
    what: 'PUSH_PROMISE',
    frames: [frame(PUSH_PROMISE, END_HEADERS, 1, words(2))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  { section: '§6.7', what: 'PING', frames: [frame(PING, 0, 0, Buffer.alloc(8))], said: ['PING ACK'] },
  {
    section: '§6.7',
    what: 'PING on a stream',
    frames: [frame(PING, 0, 1, Buffer.alloc(8))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  { section: '§6.7', what: 'PING of 9 octets', frames: [frame(PING, 0, 0, NINE)], said: GOAWAY_1('FRAME_SIZE_ERROR') },
  {
    section: '§6.8',
    what: 'GOAWAY on a stream',
    frames: [frame(GOAWAY, 0, 1, words(0, 0))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.8',
    what: 'GOAWAY of 7 octets',
    frames: [frame(GOAWAY, 0, 0, Buffer.alloc(7))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 3 octets',
    frames: [frame(WINDOW_UPDATE, 0, 0, Buffer.alloc(3))],
    said: GOAWAY_1('FRAME_SIZE_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 0 for the connection',
    frames: [frame(WINDOW_UPDATE, 0, 0, words(0))],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.9',
    what: 'WINDOW_UPDATE of 0 for a stream',
    frames: [frame(WINDOW_UPDATE, 0, 1, words(0))],
    said: ['RST_STREAM 1 PROTOCOL_ERROR'],
  },
  {
    section: '§6.9.1',
    what: 'a connection window above 2^31-1',
    frames: [frame(WINDOW_UPDATE, 0, 0, words(0x7fff_ffff))],
    said: GOAWAY_1('FLOW_CONTROL_ERROR'),
  },
  {
    section: '§6.9.1',
    what: 'a stream window above 2^31-1',
    frames: [frame(WINDOW_UPDATE, 0, 1, words(0x7fff_ffff))],
    said: ['RST_STREAM 1 FLOW_CONTROL_ERROR'],
  },
  {
    section: '§6.9.2',
    what: 'an initial window that takes an open stream above 2^31-1',
    frames: [frame(WINDOW_UPDATE, 0, 1, words(0x7000_0000)), settingsFrame([[4, 0x7fff_ffff]])],
    said: ['SETTINGS ACK', ...GOAWAY_1('FLOW_CONTROL_ERROR')],
  },
  {
    section: '§6.10',
    what: 'CONTINUATION without HEADERS',
    frames: [frame(CONTINUATION, END_HEADERS, 1)],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§6.10',
    what: 'CONTINUATION of another stream',
    frames: [frame(HEADERS, 0, 3), frame(CONTINUATION, END_HEADERS, 1)],
    said: GOAWAY_1('PROTOCOL_ERROR'),
  },
  {
    section: '§8.1',
    what: 'trailers without END_STREAM',
    frames: [frame(HEADERS, END_HEADERS, 1, block([['x', 'y']]))],
    said: ['RST_STREAM 1 PROTOCOL_ERROR'],
  },
  {
    section: '§8.1.1',
    what: 'a request with a field in upper case',
    frames: [requestFrame(3, [...connectTo('a:1'), ['X', 'y']])],
    said: ['RST_STREAM 3 PROTOCOL_ERROR'],
  },
  {
    section: '§8.3',
    what: 'a request without :method',
    frames: [requestFrame(3, [[':authority', 'a:1']])],
    said: ['RST_STREAM 3 PROTOCOL_ERROR'],
  },
  {
    section: '§8.5',
    what: 'CONNECT with :path',
    frames: [requestFrame(3, [...connectTo('a:1'), [':path', '/']])],
    said: ['RST_STREAM 3 PROTOCOL_ERROR'],
  },
  {
    section: '§8.5',
    what: 'CONNECT without :authority',
    frames: [requestFrame(3, [[':method', 'CONNECT']])],
    said: ['RST_STREAM 3 PROTOCOL_ERROR'],
  },
  {
    section: '§10.5.1',
    what: 'a header list larger than announced',
    frames: [requestFrame(3, [...connectTo('a:1'), ['x', 'y'.repeat(70_000)]])],
    said: ['RST_STREAM 3 ENHANCE_YOUR_CALM'],
  },
];

for (const { section, what, frames, said } of SERVER) {
  test(`RFC 9113 ${section}: a server is sent ${what}`, () => {
    const server = new ConnectionUnderTest('server').established();
    server.receive(connectFrame(1));
    server.requests[0]!.recorder.reads = false;
    server.frames();
    server.receive(...frames);
    assert.deepEqual(server.said(), said);
    const isFatal = said.some((text) => text.startsWith('GOAWAY'));
    assert.equal(server.connection.isClosed, isFatal);
    assert.equal(server.transport.closed, isFatal);
    if (isFatal) assert.equal(server.requests[0]!.recorder.outcome, said.at(-1)!.split(' ')[1]);
    // What ended a stream or nothing has left the connection usable.
    if (!isFatal) {
      server.receive(connectFrame(5));
      assert.equal(server.requests.at(-1)!.stream.id, 5);
    }
  });
}

const CLIENT: readonly Row[] = [
  {
    section: '§5.1',
    what: 'HEADERS on a stream it has not opened',
    frames: [responseFrame(3, 200)],
    said: ['GOAWAY PROTOCOL_ERROR (last 0)'],
  },
  {
    section: '§5.1.1',
    what: 'HEADERS on a stream of the server',
    frames: [responseFrame(2, 200)],
    said: ['GOAWAY PROTOCOL_ERROR (last 0)'],
  },
  {
    section: '§6.6',
    what: 'PUSH_PROMISE',
    frames: [frame(PUSH_PROMISE, END_HEADERS, 1, words(2))],
    said: ['GOAWAY PROTOCOL_ERROR (last 0)'],
  },
  {
    section: '§8.1',
    what: 'trailers without END_STREAM',
    frames: [responseFrame(1, 200)],
    said: ['RST_STREAM 1 PROTOCOL_ERROR'],
  },
  {
    section: '§8.1',
    what: 'trailers',
    frames: [frame(HEADERS, END_HEADERS | END_STREAM, 1, block([['x', 'y']]))],
    said: [],
  },
];

for (const { section, what, frames, said } of CLIENT) {
  test(`RFC 9113 ${section}: a client is sent ${what}`, () => {
    const client = new ConnectionUnderTest('client').established();
    const { recorder } = client.open();
    client.receive(responseFrame(1, 200));
    client.frames();
    client.receive(...frames);
    assert.deepEqual(client.said(), said);
    assert.equal(
      client.connection.isClosed,
      said.some((text) => text.startsWith('GOAWAY')),
    );
    assert.equal(recorder.outcome, said.length === 0 ? 'end' : /PROTOCOL_ERROR/.exec(said[0]!)![0]);
  });
}

test('RFC 9113 §8.1: interim answers do not count as the answer', () => {
  const client = new ConnectionUnderTest('client').established();
  const { recorder } = client.open();
  client.receive(responseFrame(1, 100), responseFrame(1, 103), responseFrame(1, 200));
  assert.deepEqual(
    recorder.headers.map(([status]) => status![1]),
    ['100', '103', '200'],
  );
  assert.deepEqual(recorder.trailers, []);
});

test('RFC 9113 §8.5: a request that is no CONNECT is well-formed and reaches the one who answers', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(
    requestFrame(1, [
      [':method', 'GET'],
      [':scheme', 'https'],
      [':path', '/'],
      [':authority', 'a'],
    ]),
  );
  assert.deepEqual(server.requests[0]!.head, { kind: 'other-method', method: 'GET' });
});

test('a request that cannot be sent leaves the connection as it was', () => {
  const client = new ConnectionUnderTest('client').established();
  for (const value of ['x'.repeat(70_000), 'ключ']) {
    assert.throws(() => client.connection.open([...connectTo('a:1'), ['baggage', value]], client.recorder()));
  }
  assert.equal(client.connection.streamCount, 0);
  const server = new ConnectionUnderTest('server');
  const { recorder } = client.open('b:2');
  server.receive(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), settingsFrame([]));
  server.transport.deliver(client.transport.take());
  assert.deepEqual(server.requests[0]!.head, { kind: 'connect', authority: 'b:2', headers: [] });
  assert.equal(server.requests[0]!.stream.id, 1);
  assert.equal(recorder.outcome, 'open');
});

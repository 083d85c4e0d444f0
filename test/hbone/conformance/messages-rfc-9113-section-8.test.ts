import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import type { HeaderField } from '../../../src/hbone/hpack.ts';
import { ConnectionUnderTest, connectTo, frame, responseFrame } from '../connection/support/connection-under-test.ts';
import { conformance, headers, IGNORED, type Rule, type Step, streamError } from './support/conformance.ts';

const { DATA } = FrameType;
const { END_STREAM } = FrameFlag;

/** A request on stream 3. */
function request(section: string, what: string, fields: HeaderField[], wellFormed = false): Rule {
  return {
    section,
    what: `a request ${what}`,
    role: 'server',
    steps: [headers(3, fields)],
    verdict: wellFormed ? IGNORED : streamError('PROTOCOL_ERROR', 3),
  };
}

const CONNECT = connectTo('10.0.0.1:80');
const with_ = (...fields: HeaderField[]) => [...CONNECT, ...fields];

const REQUESTS: readonly Rule[] = [
  request('§8.5', 'with :method CONNECT and :authority', CONNECT, true),
  request('§8.5', 'with :authority in front of :method', [...CONNECT].reverse(), true),
  request('§8.5', 'with :method CONNECT and :path', with_([':path', '/'])),
  request('§8.5', 'with :method CONNECT and :scheme', with_([':scheme', 'https'])),
  request('§8.5', 'with :method CONNECT and no :authority', [[':method', 'CONNECT']]),
  request('§8.5', 'with :method CONNECT and an empty :authority', connectTo('')),
  request('RFC 8441 §4', 'with :protocol, which was not announced', with_([':protocol', 'websocket'])),
  request('§8.1.1', 'without any field', []),
  request('§8.3', 'without :method', [[':authority', 'a:1']]),
  request('§8.3', 'with a pseudo-header field twice', with_([':authority', 'b:2'])),
  request('§8.3', 'with a pseudo-header field behind a regular one', [CONNECT[0]!, ['x', 'y'], CONNECT[1]!]),
  request('§8.3', 'with a pseudo-header field of responses', with_([':status', '200'])),
  request('§8.3', 'with an unknown pseudo-header field', with_([':x', 'y'])),
  request('§8.3.1', 'other than CONNECT without :path', [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':authority', 'a'],
  ]),
  request('§8.3.1', 'whose Host differs from :authority', with_(['host', 'other'])),
  request('§8.2', 'with a field name in upper case', with_(['X', 'y'])),
  request('§8.2.1', 'with an empty field name', with_(['', 'y'])),
  request('§8.2.1', 'with a space in a field name', with_(['a b', 'y'])),
  request('§8.2.1', 'with a line break in a value', with_(['x', 'a\r\nb'])),
  request('§8.2.1', 'with a NUL in a value', with_(['x', '\0'])),
  request('§8.2.1', 'with white space around a value', with_(['x', ' y'])),
  request('§8.2.2', 'with a connection-specific field', with_(['connection', 'close'])),
  request('§8.2.2', 'with te other than trailers', with_(['te', 'gzip'])),
  request('§8.2.2', 'with te: trailers', with_(['te', 'trailers']), true),
];

const interim = (status: number, flags = 0) => responseFrame(3, status, flags);
const open: Step = ({ under }) => void under.open();

/** What the server sends on stream 3, which the client has just opened. */
function response(section: string, what: string, frames: readonly Buffer[], wellFormed = false): Rule {
  return {
    section,
    what,
    role: 'client',
    steps: [open, ...frames],
    verdict: wellFormed ? IGNORED : streamError('PROTOCOL_ERROR', 3),
  };
}

const RESPONSES: readonly Rule[] = [
  response('§8.1', 'interim responses before the final one', [interim(100), interim(103), interim(200)], true),
  response('§8.1', 'an interim response that ends the stream', [interim(103, END_STREAM)]),
  response('§8.6', 'a response with status 101', [interim(101)]),
  response('§8.1', 'DATA before the response', [frame(DATA, 0, 3, Buffer.alloc(1))]),
  response('§8.1', 'DATA between interim and final response', [interim(100), frame(DATA, 0, 3, Buffer.alloc(1))]),
  response('§8.1', 'the end of the stream before the response', [frame(DATA, END_STREAM, 3)]),
  response('§8.3.2', 'a response without :status', [headers(3, [['x', 'y']])]),
  response('§8.3.2', 'a response with a :status that is no number', [headers(3, [[':status', '2xx']])]),
  response('§8.3.2', 'a response with :status twice', [
    headers(3, [
      [':status', '200'],
      [':status', '200'],
    ]),
  ]),
  response('§8.3', 'a response with a pseudo-header field of requests', [
    headers(3, [
      [':status', '200'],
      [':path', '/'],
    ]),
  ]),
  response('§8.2', 'a response with a field name in upper case', [
    headers(3, [
      [':status', '200'],
      ['X', 'y'],
    ]),
  ]),
  response('§8.2.2', 'a response with transfer-encoding', [
    headers(3, [
      [':status', '200'],
      ['transfer-encoding', 'chunked'],
    ]),
  ]),
  response(
    'RFC 9110 §9.3.6',
    'a 200 with content-length, which means nothing there',
    [
      headers(3, [
        [':status', '200'],
        ['content-length', '5'],
      ]),
      frame(DATA, 0, 3, Buffer.alloc(9)),
    ],
    true,
  ),
  response('§8.1', 'a response that ends the stream', [responseFrame(3, 503, END_STREAM)], true),
];

const TRAILERS: readonly Rule[] = [
  { section: '§8.1', what: 'trailers', steps: [headers(1, [['a', 'b']], END_STREAM)], verdict: IGNORED },
  { section: '§8.1', what: 'empty trailers', steps: [headers(1, [], END_STREAM)], verdict: IGNORED },
  {
    section: '§8.1',
    what: 'trailers without END_STREAM',
    steps: [headers(1, [['a', 'b']])],
    verdict: streamError('PROTOCOL_ERROR'),
  },
  {
    section: '§8.1',
    what: 'trailers with a pseudo-header field',
    steps: [headers(1, [[':status', '200']], END_STREAM)],
    verdict: streamError('PROTOCOL_ERROR'),
  },
  {
    section: '§8.2',
    what: 'trailers with a field name in upper case',
    steps: [headers(1, [['A', 'b']], END_STREAM)],
    verdict: streamError('PROTOCOL_ERROR'),
  },
  {
    section: '§8.1',
    what: 'a second response',
    role: 'client',
    steps: [responseFrame(1, 200)],
    verdict: streamError('PROTOCOL_ERROR'),
  },
  {
    section: '§8.1',
    what: 'an interim response behind the final one',
    role: 'client',
    steps: [responseFrame(1, 100)],
    verdict: streamError('PROTOCOL_ERROR'),
  },
];

const HEADER_LISTS: readonly Rule[] = [
  {
    section: '§10.5.1',
    what: 'a header list larger than announced',
    role: 'server',
    steps: [headers(3, with_(['x', 'y'.repeat(70_000)]))],
    verdict: streamError('ENHANCE_YOUR_CALM', 3),
  },
  {
    section: '§10.5.1',
    what: 'trailers larger than announced',
    steps: [headers(1, [['x', 'y'.repeat(70_000)]], END_STREAM)],
    verdict: streamError('ENHANCE_YOUR_CALM'),
  },
];

conformance([...REQUESTS, ...RESPONSES, ...TRAILERS, ...HEADER_LISTS]);

test('RFC 9113 §8.1: interim responses go no further, and the final one arrives once', () => {
  const client = new ConnectionUnderTest('client').established();
  const { recorder } = client.open();
  client.receive(
    responseFrame(1, 100),
    responseFrame(1, 103),
    headers(
      1,
      [
        [':status', '204'],
        ['a', 'b'],
      ],
      END_STREAM,
    ),
  );
  assert.deepEqual(recorder.responses, [{ status: 204, headers: [['a', 'b']] }]);
  assert.equal(recorder.outcome, 'end');
});

test('RFC 9113 §8.5: a request that is no CONNECT is well-formed and reaches the one who answers', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(
    headers(1, [
      [':method', 'GET'],
      [':scheme', 'https'],
      [':path', '/'],
      [':authority', 'a'],
    ]),
  );
  assert.deepEqual(server.requests[0]!.head, { kind: 'other-method', method: 'GET' });
});

test('RFC 9113 §8.1.1: whoever handles a stream hears why the peer’s message was malformed', () => {
  const client = new ConnectionUnderTest('client').established();
  const { recorder } = client.open();
  client.receive(headers(1, [['x', 'y']]));
  assert.deepEqual(recorder.reset, {
    code: 1,
    unprocessed: false,
    detail: 'malformed response: response without :status',
  });
});

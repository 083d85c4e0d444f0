import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import {
  ConnectionUnderTest,
  connectFrame,
  frame,
  responseFrame,
  words,
} from '../connection/support/connection-under-test.ts';
import {
  conformance,
  connectionError,
  headers,
  IGNORED,
  type Rule,
  type Step,
  streamError,
} from './support/conformance.ts';

const { DATA, RST_STREAM, WINDOW_UPDATE, HEADERS } = FrameType;
const { END_STREAM, END_HEADERS } = FrameFlag;

const NINE = Buffer.alloc(9);
const data = (streamId: number, flags = 0) => frame(DATA, flags, streamId, NINE);
const trailers = (streamId: number) => headers(streamId, [['a', 'b']], END_STREAM);
const update = (streamId: number) => frame(WINDOW_UPDATE, 0, streamId, words(1));
const reset = (streamId: number) => frame(RST_STREAM, 0, streamId, words(8));

const resetHere: Step = ({ stream }) => stream.reset(8);
const endHere: Step = ({ stream }) => stream.end();
const ended = data(1, END_STREAM);

const IDLE: readonly Rule[] = [
  { section: '§5.1', what: 'DATA on an idle stream', steps: [data(3)], verdict: connectionError('PROTOCOL_ERROR') },
  {
    section: '§5.1',
    what: 'DATA on an idle stream with an even id',
    steps: [data(2)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1',
    what: 'RST_STREAM on an idle stream',
    steps: [reset(3)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1',
    what: 'WINDOW_UPDATE on an idle stream',
    steps: [update(3)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1',
    role: 'client',
    what: 'HEADERS on an idle stream',
    steps: [responseFrame(3, 200)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1.1',
    role: 'server',
    what: 'a request on an even stream',
    steps: [connectFrame(4)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1.1',
    role: 'client',
    what: 'HEADERS on an even stream',
    steps: [responseFrame(2, 200)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
  {
    section: '§5.1.1',
    role: 'server',
    what: 'requests that skip stream ids',
    steps: [connectFrame(9), connectFrame(13)],
    verdict: IGNORED,
  },
  {
    section: '§5.1.1',
    role: 'server',
    what: 'a request on a stream below the last one',
    steps: [connectFrame(9), connectFrame(7)],
    verdict: connectionError('PROTOCOL_ERROR'),
  },
];

const HALF_CLOSED: readonly Rule[] = [
  { section: '§5.1', what: 'DATA on a stream that it has ended', steps: [endHere, data(1)], verdict: IGNORED },
  { section: '§5.1', what: 'trailers on a stream that it has ended', steps: [endHere, trailers(1)], verdict: IGNORED },
  { section: '§5.1', what: 'RST_STREAM on a stream that it has ended', steps: [endHere, reset(1)], verdict: IGNORED },
  {
    section: '§5.1',
    what: 'WINDOW_UPDATE on a stream that the peer has ended',
    steps: [ended, update(1)],
    verdict: IGNORED,
  },
  {
    section: '§5.1',
    what: 'RST_STREAM on a stream that the peer has ended',
    steps: [ended, reset(1)],
    verdict: IGNORED,
  },
  {
    section: '§5.1',
    what: 'DATA on a stream that the peer has ended',
    steps: [ended, data(1)],
    verdict: streamError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'empty DATA on a stream that the peer has ended',
    steps: [ended, frame(DATA, END_STREAM, 1)],
    verdict: streamError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'trailers on a stream that the peer has ended',
    steps: [ended, trailers(1)],
    verdict: streamError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'DATA behind trailers',
    steps: [trailers(1), data(1)],
    verdict: streamError('STREAM_CLOSED'),
  },
];

const CLOSED: readonly Rule[] = [
  { section: '§5.1', what: 'DATA on a stream that it has reset', steps: [resetHere, data(1), ended], verdict: IGNORED },
  {
    section: '§5.1',
    what: 'trailers on a stream that it has reset',
    steps: [resetHere, trailers(1)],
    verdict: IGNORED,
  },
  {
    section: '§5.1',
    what: 'WINDOW_UPDATE on a stream that it has reset',
    steps: [resetHere, update(1)],
    verdict: IGNORED,
  },
  { section: '§5.1', what: 'RST_STREAM on a stream that it has reset', steps: [resetHere, reset(1)], verdict: IGNORED },
  {
    section: '§5.1',
    what: 'WINDOW_UPDATE on a stream that both have ended',
    steps: [endHere, ended, update(1)],
    verdict: IGNORED,
  },
  {
    section: '§5.1',
    what: 'RST_STREAM on a stream that both have ended',
    steps: [endHere, ended, reset(1)],
    verdict: IGNORED,
  },
  {
    section: '§5.1',
    what: 'DATA on a stream that both have ended',
    steps: [endHere, ended, data(1)],
    verdict: streamError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'DATA on a stream that the peer has reset',
    steps: [reset(1), data(1)],
    verdict: streamError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'HEADERS on a stream that both have ended',
    steps: [endHere, ended, trailers(1)],
    verdict: connectionError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'HEADERS on a stream that the peer has reset',
    steps: [reset(1), trailers(1)],
    verdict: connectionError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    what: 'trailers on a stream that the peer ended and this side then reset',
    steps: [ended, resetHere, trailers(1)],
    verdict: connectionError('STREAM_CLOSED'),
  },
  {
    section: '§5.1',
    role: 'server',
    what: 'DATA of a request that it has found malformed',
    steps: [headers(3, [['x', 'y']]), data(3)],
    verdict: streamError('PROTOCOL_ERROR', 3),
  },
  {
    section: '§5.4.2',
    what: 'DATA after a stream error',
    steps: [frame(WINDOW_UPDATE, 0, 1, words(0)), data(1), trailers(1)],
    verdict: streamError('PROTOCOL_ERROR'),
  },
];

conformance([...IDLE, ...HALF_CLOSED, ...CLOSED]);

test('RFC 9113 §5.1: with more resets than it remembers, a peer gets the benefit of the doubt', () => {
  const server = new ConnectionUnderTest('server').established();
  for (let id = 1; id < 2001; id += 2) {
    server.receive(connectFrame(id));
    server.requests.at(-1)!.stream.reset(8);
  }
  server.frames();
  for (const id of [1, 501, 1999]) server.receive(data(id), trailers(id));
  assert.deepEqual(server.said(), []);
  assert.equal(server.closed, undefined);
});

test('RFC 9113 §5.1.2: streams beyond the limit are refused, and what comes on them is discarded', () => {
  const server = new ConnectionUnderTest('server', { maxConcurrentStreams: 1 }).established();
  server.receive(connectFrame(1), connectFrame(3), data(3), frame(HEADERS, END_HEADERS | END_STREAM, 3));
  assert.deepEqual(server.said(), ['RST_STREAM 3 REFUSED_STREAM']);
});

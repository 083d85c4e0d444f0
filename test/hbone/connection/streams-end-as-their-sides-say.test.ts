import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import {
  block,
  ConnectionUnderTest,
  connectFrame,
  describe,
  frame,
  pump,
  responseFrame,
  words,
} from './support/connection-under-test.ts';

function answeredPair() {
  const [client, server] = [new ConnectionUnderTest('client'), new ConnectionUnderTest('server')];
  const { stream, recorder } = client.open();
  pump(client, server);
  const { stream: remote, recorder: other } = server.requests[0]!;
  remote.respond([[':status', '200']], false);
  pump(client, server);
  return { client, server, stream, recorder, remote, other };
}

test('RFC 9113 §5.1: either side can end first and go on receiving', () => {
  for (const first of ['client', 'server'] as const) {
    const { client, server, stream, recorder, remote, other } = answeredPair();
    const [ending, going] = first === 'client' ? [stream, remote] : [remote, stream];
    const [endingHears, goingHears] = first === 'client' ? [recorder, other] : [other, recorder];
    ending.end();
    pump(client, server);
    assert.deepEqual([goingHears.outcome, endingHears.outcome], ['end', 'open']);
    (first === 'client' ? server : client).send(going, 100_000);
    pump(client, server);
    assert.equal(endingHears.length, 100_000);
    going.end();
    pump(client, server);
    assert.equal(endingHears.outcome, 'end');
    assert.deepEqual([client.connection.streamCount, server.connection.streamCount], [0, 0]);
    assert.deepEqual([client.streamsClosed, server.streamsClosed], [1, 1]);
  }
});

test('RFC 9113 §5.4.2: a reset reaches the other side with its code, and only that stream', () => {
  for (const [name, code] of Object.entries(ErrorCode)) {
    const { client, server, stream, remote, other } = answeredPair();
    const bystander = client.open();
    pump(client, server);
    stream.reset(code);
    pump(client, server);
    assert.equal(other.reset?.code, code, name);
    assert.equal(other.reset.unprocessed, name === 'REFUSED_STREAM');
    assert.equal(bystander.recorder.outcome, 'open');
    // Nothing more is said about it, whatever its holder does.
    remote.end();
    remote.reset(ErrorCode.CANCEL);
    stream.end();
    assert.deepEqual([client.said(), server.said()], [[], []]);
  }
});

test('RFC 9113 §7: a code that this version does not know is passed on', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1), frame(FrameType.RST_STREAM, 0, 1, words(0xfeed)));
  assert.equal(server.requests[0]!.recorder.reset?.code, 0xfeed);
});

test('RFC 9113 §8.1: an answer that is complete is followed by a reset that asks for no more', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1));
  const { stream } = server.requests[0]!;
  stream.respond([[':status', '503']], true);
  stream.reset(ErrorCode.NO_ERROR);
  assert.deepEqual(server.said(), ['HEADERS 1 END', 'RST_STREAM 1 NO_ERROR']);
});

test('RFC 9113 §6.1, §6.10: padded frames and a header block in pieces carry what they would in one', () => {
  const server = new ConnectionUnderTest('server').established();
  const bytes = block([
    [':method', 'CONNECT'],
    [':authority', '10.0.0.1:80'],
    ['x', 'y'.repeat(100)],
  ]);
  const pad = (payload: Uint8Array, length: number) =>
    Buffer.concat([Buffer.from([length]), payload, Buffer.alloc(length)]);
  const priority = Buffer.from([0, 0, 0, 0, 16]);
  server.receive(
    frame(
      FrameType.HEADERS,
      FrameFlag.PADDED | FrameFlag.PRIORITY,
      1,
      pad(Buffer.concat([priority, bytes.subarray(0, 10)]), 7),
    ),
    frame(FrameType.CONTINUATION, 0, 1, bytes.subarray(10, 11)),
    frame(FrameType.CONTINUATION, 0, 1),
    frame(FrameType.CONTINUATION, FrameFlag.END_HEADERS, 1, bytes.subarray(11)),
    frame(FrameType.DATA, FrameFlag.PADDED, 1, pad(Buffer.from('hello '), 200)),
    frame(FrameType.DATA, FrameFlag.PADDED, 1, pad(Buffer.from('world'), 0)),
    frame(FrameType.DATA, FrameFlag.PADDED | FrameFlag.END_STREAM, 1, pad(Buffer.alloc(0), 255)),
  );
  const { head, recorder } = server.requests[0]!;
  assert.deepEqual(head, { kind: 'connect', authority: '10.0.0.1:80', headers: [['x', 'y'.repeat(100)]] });
  assert.equal(recorder.data.toString(), 'hello world');
  assert.equal(recorder.outcome, 'end');
});

test('RFC 9113 §6.10: END_STREAM of a request whose header block comes in pieces counts once the block is there', () => {
  const server = new ConnectionUnderTest('server').established();
  const bytes = connectFrame(1).subarray(9);
  server.receive(
    frame(FrameType.HEADERS, FrameFlag.END_STREAM, 1, bytes.subarray(0, 5)),
    frame(FrameType.CONTINUATION, FrameFlag.END_HEADERS, 1, bytes.subarray(5)),
  );
  assert.equal(server.requests[0]!.recorder.outcome, 'end');
});

test('RFC 9113 §5.1.2: streams beyond the limit are refused so that they can be sent elsewhere', () => {
  const server = new ConnectionUnderTest('server', { maxConcurrentStreams: 2 }).established();
  server.receive(connectFrame(1), connectFrame(3), connectFrame(5));
  assert.deepEqual(server.said(), ['RST_STREAM 5 REFUSED_STREAM']);
  server.receive(frame(FrameType.RST_STREAM, 0, 1, words(ErrorCode.CANCEL)), connectFrame(7));
  assert.deepEqual(server.said(), []);
  assert.deepEqual(
    server.requests.map(({ stream }) => stream.id),
    [1, 3, 7],
  );
});

test('RFC 9113 §8.7: a refused stream may be sent again, a cancelled one may not', () => {
  const client = new ConnectionUnderTest('client').established();
  const [refused, cancelled] = [client.open(), client.open()];
  client.receive(
    frame(FrameType.RST_STREAM, 0, 1, words(ErrorCode.REFUSED_STREAM)),
    frame(FrameType.RST_STREAM, 0, 3, words(ErrorCode.CANCEL)),
  );
  assert.deepEqual([refused.recorder.reset?.unprocessed, cancelled.recorder.reset?.unprocessed], [true, false]);
});

test('RFC 9113 §6.8: streams above the last one of a GOAWAY were not processed, the others go on', () => {
  const client = new ConnectionUnderTest('client').established();
  const streams = [client.open(), client.open(), client.open()];
  client.receive(frame(FrameType.GOAWAY, 0, 0, words(3, ErrorCode.NO_ERROR)));
  assert.deepEqual(client.goingAway, ['NO_ERROR']);
  assert.equal(client.connection.accepting, false);
  assert.equal(client.connection.room, 0);
  assert.deepEqual(
    streams.map(({ recorder }) => recorder.reset?.unprocessed),
    [undefined, undefined, true],
  );
  client.receive(responseFrame(1, 200, FrameFlag.END_STREAM), responseFrame(3, 200, FrameFlag.END_STREAM));
  client.frames();
  streams[0]!.stream.end();
  assert.equal(client.closed, undefined);
  streams[1]!.stream.end();
  // The last one has ended: nothing is left to stay for.
  assert.equal(client.closed, null);
  assert.deepEqual(client.said(), ['DATA 1 (0) END', 'DATA 3 (0) END', 'GOAWAY NO_ERROR (last 0)']);
  assert.equal(client.transport.closed, true);
});

test('RFC 9113 §6.8: the second GOAWAY of a graceful shut-down may name fewer streams than the first', () => {
  const client = new ConnectionUnderTest('client').established();
  const streams = [client.open(), client.open()];
  client.receive(frame(FrameType.GOAWAY, 0, 0, words(0x7fff_ffff, ErrorCode.NO_ERROR)));
  assert.deepEqual(
    streams.map(({ recorder }) => recorder.outcome),
    ['open', 'open'],
  );
  client.receive(frame(FrameType.GOAWAY, 0, 0, words(1, ErrorCode.NO_ERROR)));
  assert.deepEqual(
    streams.map(({ recorder }) => recorder.reset?.unprocessed),
    [undefined, true],
  );
});

const ANNOUNCEMENT = 'GOAWAY NO_ERROR (last 2147483647)';

/** The peer answers the PINGs that it was sent. */
function answerPings(under: ConnectionUnderTest): string[] {
  const frames = under.frames();
  for (const { type, flags, payload } of frames) {
    if (type === FrameType.PING && flags === 0) under.receive(frame(FrameType.PING, FrameFlag.ACK, 0, payload));
  }
  return frames.map(describe);
}

test('RFC 9113 §6.8: a server that drains announces it, serves what crosses that, refuses what comes later, and closes', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1));
  server.connection.drain();
  server.receive(connectFrame(3));
  assert.deepEqual(answerPings(server), [ANNOUNCEMENT, 'PING']);
  assert.deepEqual(server.said(), ['GOAWAY NO_ERROR (last 3)']);
  server.receive(connectFrame(5));
  assert.deepEqual(server.said(), ['RST_STREAM 5 REFUSED_STREAM']);
  assert.deepEqual(
    server.requests.map(({ stream }) => stream.id),
    [1, 3],
  );
  for (const { stream } of server.requests) {
    stream.respond([[':status', '200']], false);
    assert.equal(server.send(stream, 1000), 1000);
    stream.end();
    assert.equal(server.transport.closed, false);
    server.receive(frame(FrameType.DATA, FrameFlag.END_STREAM, stream.id));
  }
  assert.deepEqual([server.closed, server.transport.closed], [null, true]);
  assert.deepEqual(server.said(), [
    ...['HEADERS 1', 'DATA 1 (1000)', 'DATA 1 (0) END'],
    ...['HEADERS 3', 'DATA 3 (1000)', 'DATA 3 (0) END'],
  ]);
});

test('RFC 9113 §6.8: a server without streams that drains gives requests that are under way a round trip', () => {
  const server = new ConnectionUnderTest('server').established();
  server.connection.drain();
  server.connection.drain();
  assert.equal(server.transport.closed, false);
  assert.deepEqual(answerPings(server), [ANNOUNCEMENT, 'PING']);
  assert.deepEqual(server.said(), ['GOAWAY NO_ERROR (last 0)']);
  assert.deepEqual([server.closed, server.transport.closed], [null, true]);
});

test('a server does not wait for ever for the answer to its announcement', () => {
  const server = new ConnectionUnderTest('server').established();
  server.connection.drain();
  server.frames();
  server.now += 4_999;
  server.connection.keepAlive(10_000, 20_000);
  assert.deepEqual(server.said(), []);
  server.now += 1;
  server.connection.keepAlive(10_000, 20_000);
  assert.deepEqual(server.said(), ['GOAWAY NO_ERROR (last 0)']);
  assert.equal(server.closed, null);
});

test('a server whose client has gone away already drains in one step', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1), frame(FrameType.GOAWAY, 0, 0, words(0, ErrorCode.NO_ERROR)));
  server.connection.drain();
  assert.deepEqual(server.said(), ['GOAWAY NO_ERROR (last 1)']);
});

test('a client without streams that drains closes at once', () => {
  const client = new ConnectionUnderTest('client').established();
  client.connection.drain();
  assert.deepEqual(client.said(), ['GOAWAY NO_ERROR (last 0)']);
  assert.deepEqual([client.closed, client.transport.closed], [null, true]);
});

test('RFC 9113 §6.8: between two connections no request of a draining server is lost', () => {
  const [client, server] = [new ConnectionUnderTest('client'), new ConnectionUnderTest('server')];
  pump(client, server);
  const before = client.open();
  pump(client, server);
  server.connection.drain();
  const crossing = client.open();
  // It crosses the announcement.
  server.transport.deliver(client.transport.take());
  pump(client, server);
  assert.deepEqual(client.goingAway, ['NO_ERROR', 'NO_ERROR']);
  assert.deepEqual([before.recorder.outcome, crossing.recorder.outcome], ['open', 'open']);
  assert.equal(server.requests.length, 2);
  assert.equal(client.connection.room, 0);
});

test('every stream hears of the end of its connection, once', () => {
  const ends: [why: string, end: (client: ConnectionUnderTest) => void, outcome: string][] = [
    ['lost', ({ connection }) => connection.lost('gone'), 'CONNECT_ERROR'],
    ['aborted', ({ connection }) => connection.abort(ErrorCode.NO_ERROR, 'gone'), 'CANCEL'],
    ['broken', (client) => client.receive(frame(FrameType.DATA, 0, 0)), 'PROTOCOL_ERROR'],
  ];
  for (const [why, end, outcome] of ends) {
    const client = new ConnectionUnderTest('client').established();
    const streams = [client.open(), client.open()];
    end(client);
    assert.deepEqual(
      streams.map(({ recorder }) => recorder.outcome),
      [outcome, outcome],
      why,
    );
    assert.equal(client.connection.isClosed, true);
    assert.notEqual(client.closed, undefined);
    // Nothing is said any more.
    client.frames();
    streams[0]!.stream.end();
    client.connection.drain();
    client.connection.lost('again');
    client.transport.closed = false;
    client.receive(frame(FrameType.PING, 0, 0, Buffer.alloc(8)));
    assert.deepEqual(client.said(), []);
  }
});

test('keep-alive asks an idle peer, takes any frame for an answer, and gives up on a silent one', () => {
  const client = new ConnectionUnderTest('client').established();
  const { recorder } = client.open();
  client.frames();
  const tick = (ms: number) => {
    client.now += ms;
    client.connection.keepAlive(10_000, 20_000);
    return client.said();
  };
  assert.deepEqual(tick(9_999), []);
  assert.deepEqual(tick(1), ['PING']);
  assert.deepEqual(tick(19_999), []);
  client.receive(responseFrame(1, 200));
  assert.deepEqual(tick(9_999), []);
  assert.deepEqual(tick(1), ['PING']);
  assert.deepEqual(tick(20_000), ['GOAWAY NO_ERROR (last 0)']);
  assert.equal(recorder.outcome, 'CANCEL');
  assert.equal(client.transport.closed, true);
});

test('an error in what handles a stream ends the connection and comes out with its stack', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1), connectFrame(3));
  const [first, second] = server.requests;
  const bug = new Error('a bug');
  first!.recorder.streamData = () => {
    throw bug;
  };
  assert.throws(() => server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(1))), bug);
  assert.match(server.said().at(-1)!, /^GOAWAY INTERNAL_ERROR/);
  assert.equal(second!.recorder.outcome, 'INTERNAL_ERROR');
  assert.equal(server.transport.closed, true);
});

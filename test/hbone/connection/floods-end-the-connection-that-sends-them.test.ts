import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import {
  block,
  ConnectionUnderTest,
  connectFrame,
  frame,
  pump,
  settingsFrame,
  words,
} from './support/connection-under-test.ts';

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION } = FrameType;
const { ACK, END_HEADERS, PADDED } = FrameFlag;

/** Enough for any of them within one second. */
const MANY = 20_000;

const FLOODS: Readonly<Record<string, (n: number) => Buffer[]>> = {
  PING: () => [frame(PING, 0, 0, Buffer.alloc(8))],
  'PING acknowledgements': () => [frame(PING, ACK, 0, Buffer.alloc(8))],
  SETTINGS: () => [settingsFrame([])],
  'SETTINGS acknowledgements': () => [frame(SETTINGS, ACK, 0)],
  PRIORITY: () => [frame(PRIORITY, 0, 1, Buffer.alloc(5))],
  'unknown frames': () => [frame(0x77, 0, 0)],
  'empty DATA': () => [frame(DATA, 0, 1)],
  'DATA of padding only': () => [frame(DATA, PADDED, 1, Buffer.from([0]))],
  GOAWAY: () => [frame(GOAWAY, 0, 0, words(0, 0))],
  'rapid reset (CVE-2023-44487)': (n) => [connectFrame(3 + 2 * n), frame(RST_STREAM, 0, 3 + 2 * n, words(8))],
  'resets of a stream that is gone': () => [frame(RST_STREAM, 0, 1, words(8))],
  'malformed requests': (n) => [frame(HEADERS, END_HEADERS, 3 + 2 * n, block([['x', 'y']]))],
  'requests beyond the limit of streams': (n) => [connectFrame(3 + 2 * n)],
};

for (const [what, flood] of Object.entries(FLOODS)) {
  test(`a flood of ${what} ends the connection with ENHANCE_YOUR_CALM`, () => {
    const server = new ConnectionUnderTest('server').established();
    server.receive(connectFrame(1));
    server.frames();
    let n = 0;
    while (n < MANY && !server.connection.isClosed) {
      server.receive(...flood(n++));
      // The peer reads, so nothing piles up.
      server.transport.flush();
    }
    assert.ok(n < MANY, 'it goes on');
    assert.match(server.said().at(-1)!, /^GOAWAY ENHANCE_YOUR_CALM/);
    assert.ok(server.connection.streamCount === 0);
  });
}

test('CVE-2024-27316: a header block without end is not collected', () => {
  const bounds: [what: string, size: number, most: number][] = [
    ['many empty frames', 0, 64],
    ['large frames', 65_000, 3],
  ];
  for (const [what, size, most] of bounds) {
    const server = new ConnectionUnderTest('server').established();
    server.receive(frame(HEADERS, 0, 1));
    let n = 0;
    while (n < MANY && !server.connection.isClosed) {
      server.receive(frame(CONTINUATION, 0, 1, Buffer.alloc(size)));
      n++;
    }
    assert.ok(n <= most, `${what}: ${n}`);
    assert.match(server.said().at(-1)!, /^GOAWAY ENHANCE_YOUR_CALM/);
  }
});

test('a frame of headers larger than any block is refused by its length alone', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(frame(HEADERS, END_HEADERS, 1, Buffer.alloc(200_000)).subarray(0, 9));
  assert.match(server.said().at(-1)!, /^GOAWAY ENHANCE_YOUR_CALM/);
});

test('connections that applications end with a reset are no flood, at any rate', () => {
  const [client, server] = [new ConnectionUnderTest('client'), new ConnectionUnderTest('server')];
  pump(client, server);
  for (let n = 0; n < 2 * MANY; n++) {
    const { stream } = client.open();
    pump(client, server);
    const request = server.requests.pop()!;
    request.stream.respond([[':status', '200']], false);
    pump(client, server);
    if (n % 2 === 0) stream.reset(ErrorCode.CONNECT_ERROR);
    else request.stream.reset(ErrorCode.CONNECT_ERROR);
    pump(client, server);
  }
  assert.deepEqual([client.connection.isClosed, server.connection.isClosed], [false, false]);
});

test('connections that are refused are no flood, at any rate', () => {
  const [client, server] = [new ConnectionUnderTest('client'), new ConnectionUnderTest('server')];
  pump(client, server);
  for (let n = 0; n < 2 * MANY; n++) {
    const { stream } = client.open();
    pump(client, server);
    const request = server.requests.pop()!;
    request.stream.respond([[':status', '503']], true);
    request.stream.reset(ErrorCode.NO_ERROR);
    // The client gives up before it has seen the answer.
    stream.reset(ErrorCode.CANCEL);
    pump(client, server);
  }
  assert.deepEqual([client.connection.isClosed, server.connection.isClosed], [false, false]);
});

test('a slow stream of frames without use is tolerated', () => {
  const server = new ConnectionUnderTest('server').established();
  for (let n = 0; n < 5 * MANY; n++) {
    server.now += 1;
    server.receive(frame(PING, 0, 0, Buffer.alloc(8)));
    server.transport.take();
  }
  assert.equal(server.connection.isClosed, false);
});

test('a peer that makes the connection answer and does not read is cut off, whatever its rate', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1));
  const { recorder } = server.requests[0]!;
  server.transport.room = 0;
  let n = 0;
  while (n < 10_000_000 && !server.connection.isClosed) {
    server.now += 2;
    server.receive(frame(PING, 0, 0, Buffer.alloc(8)));
    n++;
  }
  assert.ok(server.transport.queued < 3 * 1024 * 1024, `${server.transport.queued} bytes wait`);
  assert.equal(server.closed?.code, 'HTTP2_ENHANCE_YOUR_CALM');
  assert.equal(recorder.outcome, 'ENHANCE_YOUR_CALM');
});

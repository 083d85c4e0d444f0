import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Deadlines } from '../../../src/deadlines.ts';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { type Breach, ErrorCode } from '../../../src/hbone/http-error.ts';
import { expectSettings } from '../../../src/hbone/tunnel.ts';
import { WindowBudget } from '../../../src/hbone/window-budget.ts';
import {
  block,
  ConnectionUnderTest,
  connectFrame,
  frame,
  pump,
  settingsFrame,
  words,
} from './support/connection-under-test.ts';

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } = FrameType;
const { ACK, END_HEADERS, PADDED } = FrameFlag;

/** Enough for any of them within one second. */
const MANY = 20_000;

/** A header list of 70 000 octets in some thousand: an entry of the dynamic table, and references to it. */
const BOMB = Buffer.concat([
  Buffer.from('\x3f\xe1\x1f\x02\x07CONNECT', 'latin1'),
  Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4000, 0x79)]),
  Buffer.alloc(20, 0xbe),
]);

/** What is sent over and over, and as what the end of it is counted. */
const FLOODS: ReadonlyArray<readonly [what: string, breach: Breach, flood: (n: number) => Buffer[]]> = [
  ['PING', 'ping-flood', () => [frame(PING, 0, 0, Buffer.alloc(8))]],
  ['PING acknowledgements', 'ping-flood', () => [frame(PING, ACK, 0, Buffer.alloc(8))]],
  ['SETTINGS', 'settings-flood', () => [settingsFrame([])]],
  ['SETTINGS acknowledgements', 'settings-flood', () => [frame(SETTINGS, ACK, 0)]],
  ['PRIORITY', 'useless-frames', () => [frame(PRIORITY, 0, 1, Buffer.alloc(5))]],
  ['unknown frames', 'useless-frames', () => [frame(0x77, 0, 0)]],
  ['empty DATA', 'empty-frames', () => [frame(DATA, 0, 1)]],
  ['DATA of padding only', 'empty-frames', () => [frame(DATA, PADDED, 1, Buffer.from([0]))]],
  ['GOAWAY', 'useless-frames', () => [frame(GOAWAY, 0, 0, words(0, 0))]],
  [
    'rapid reset (CVE-2023-44487)',
    'rapid-reset',
    (n) => [connectFrame(3 + 2 * n), frame(RST_STREAM, 0, 3 + 2 * n, words(8))],
  ],
  ['resets of a stream that is gone', 'rapid-reset', () => [frame(RST_STREAM, 0, 1, words(8))]],
  ['malformed requests', 'stream-errors', (n) => [frame(HEADERS, END_HEADERS, 3 + 2 * n, block([['x', 'y']]))]],
  ['requests beyond the limit of streams', 'rapid-reset', (n) => [connectFrame(3 + 2 * n)]],
  ['WINDOW_UPDATE of single bytes', 'window-trickle', () => [frame(WINDOW_UPDATE, 0, 1, words(1))]],
  ['WINDOW_UPDATE of single bytes for the connection', 'window-trickle', () => [frame(WINDOW_UPDATE, 0, 0, words(1))]],
  [
    'DATA on a stream that is closed',
    'stream-errors',
    (n) => (n === 0 ? [frame(RST_STREAM, 0, 1, words(8))] : [frame(DATA, 0, 1, Buffer.alloc(1))]),
  ],
  ['header lists that are too large', 'header-list', (n) => [frame(HEADERS, END_HEADERS, 3 + 2 * n, BOMB)]],
];

for (const [what, breach, flood] of FLOODS) {
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
    assert.equal(server.breaches.at(-1), breach);
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
    assert.deepEqual(server.breaches, ['continuation-flood']);
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
  assert.deepEqual(server.breaches, ['unread-answers']);
});

for (const role of ['server', 'client'] as const) {
  test(`a stream whose smaller window shows a ${role} that the peer does not read leaves nothing behind`, () => {
    const budget = new WindowBudget(64 * 1024 * 1024);
    const under = new ConnectionUnderTest(role, { budget }).established();
    // The second request is as long as any that follows.
    const length = role === 'client' ? [1, 2].map(() => under.open() && under.frames()[0]!.payload.length + 9)[1]! : 0;
    budget.reserve(32 * 1024 * 1024);
    under.transport.room = 0;
    under.transport.queued = 2 * 1024 * 1024 - length;
    if (role === 'server') under.receive(connectFrame(1));
    else assert.throws(() => under.open(), /no room/);
    assert.equal(under.closed?.code, 'HTTP2_ENHANCE_YOUR_CALM');
    assert.deepEqual([under.requests.length, under.connection.streamCount], [0, 0]);
    assert.equal(budget.used, 32 * 1024 * 1024);
  });
}

test('RFC 7541 §7.3: a header list that is small on the wire and large when read ends its stream, and memory does not grow', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(frame(HEADERS, END_HEADERS, 1, BOMB));
  assert.deepEqual(server.said(), ['RST_STREAM 1 ENHANCE_YOUR_CALM']);
  assert.deepEqual([server.breaches, server.requests.length, server.closed], [['header-list'], 0, undefined]);
});

test('RFC 7541 §5.1, §5.2: blocks that are no HPACK are counted', () => {
  for (const bytes of [[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0x80], [0x41, 0x84, 0xff, 0xff, 0xff, 0xff]]) {
    const server = new ConnectionUnderTest('server').established();
    server.receive(frame(HEADERS, END_HEADERS, 1, Buffer.from(bytes)));
    assert.deepEqual(server.said(), ['GOAWAY COMPRESSION_ERROR (last 0)']);
    assert.deepEqual(server.breaches, ['hpack']);
  }
});

test('SETTINGS with more entries than anybody needs end the connection', () => {
  const entries = (count: number) => settingsFrame(Array.from({ length: count }, (_, i) => [4, i] as const));
  const server = new ConnectionUnderTest('server').established();
  server.receive(entries(32));
  assert.deepEqual(server.said(), ['SETTINGS ACK']);
  server.receive(entries(33));
  assert.deepEqual([server.closed?.code, server.breaches], ['HTTP2_ENHANCE_YOUR_CALM', ['settings-flood']]);
});

test('small updates are no flood for a peer that returns credit for every message', () => {
  const client = new ConnectionUnderTest('client').established();
  const { stream } = client.open();
  for (let i = 0; i < 2 * MANY; i++) {
    client.send(stream, 55);
    client.receive(frame(WINDOW_UPDATE, 0, 0, words(55)), frame(WINDOW_UPDATE, 0, 1, words(55)));
    client.transport.take();
  }
  assert.equal(client.closed, undefined);
});

test('a peer that opens its window byte by byte makes us send a bounded number of frames', () => {
  const client = new ConnectionUnderTest('client').established([[4, 0]]);
  const { stream, recorder } = client.open();
  let frames = 0;
  recorder.onWritable = () => {
    frames += client.send(stream, 1000) > 0 ? 1 : 0;
    stream.waitForWindow();
  };
  stream.waitForWindow();
  for (let i = 0; i < MANY && client.closed === undefined; i++) {
    client.receive(frame(WINDOW_UPDATE, 0, 1, words(1)));
    client.transport.take();
  }
  assert.equal(client.closed?.breach, 'window-trickle');
  assert.ok(frames < MANY);
});

test('a stream whose window stays shut is counted once, and is read from no more', () => {
  const client = new ConnectionUnderTest('client').established([[4, 0]]);
  const { stream } = client.open();
  assert.equal(stream.turn(), 0);
  stream.waitForWindow();
  for (let second = 0; second < 200; second++) {
    client.now += 1000;
    client.receive(frame(PING, ACK, 0, Buffer.alloc(8)));
    client.connection.keepAlive(10_000, 20_000);
    assert.deepEqual(client.breaches, second < 60 ? [] : ['window-stall']);
  }
});

test('a peer that does not send its preface in time is given up', () => {
  for (const role of ['client', 'server'] as const) {
    const under = new ConnectionUnderTest(role);
    const deadlines = new Deadlines(10_000, () => under.now);
    expectSettings(under.connection, deadlines);
    under.frames();
    under.now += 9_999;
    deadlines.tick(under.now);
    assert.deepEqual(under.said(), []);
    under.now += 1;
    deadlines.tick(under.now);
    assert.deepEqual(under.said(), ['GOAWAY SETTINGS_TIMEOUT (last 0)']);
    assert.deepEqual(under.breaches, ['slow-preface']);
  }
});

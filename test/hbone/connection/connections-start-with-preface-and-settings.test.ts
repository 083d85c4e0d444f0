import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLIENT_PREFACE, FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import {
  ConnectionUnderTest,
  connectFrame,
  connectTo,
  describe,
  frame,
  parseFrames,
  pump,
  type Role,
  responseFrame,
  settingsFrame,
  words,
} from './support/connection-under-test.ts';

test('RFC 9113 §3.4: a client starts with the preface, SETTINGS and the window of the connection', () => {
  const client = new ConnectionUnderTest('client', { initialWindow: 100_000, connectionWindow: 1_000_000 });
  const started = client.transport.take();
  assert.equal(started.subarray(0, CLIENT_PREFACE.length).toString(), 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  assert.deepEqual(parseFrames(started.subarray(CLIENT_PREFACE.length)).map(describe), [
    'SETTINGS 2=0 4=100000 5=1048576 6=65536',
    'WINDOW_UPDATE 0 +934465',
  ]);
});

test('RFC 9113 §3.4: a server starts with SETTINGS, which say how many streams it takes', () => {
  const server = new ConnectionUnderTest('server', { connectionWindow: 65_535 });
  assert.deepEqual(server.said(), ['SETTINGS 3=200 4=262144 5=1048576 6=65536']);
});

for (const role of ['client', 'server'] as const) {
  const start = (under: ConnectionUnderTest) => {
    under.frames();
    if (role === 'server') under.receive(CLIENT_PREFACE);
  };

  test(`RFC 9113 §6.5.3: SETTINGS are acknowledged, by a ${role} too`, () => {
    const under = new ConnectionUnderTest(role);
    start(under);
    assert.equal(under.connection.established, false);
    under.receive(settingsFrame([]));
    assert.equal(under.connection.established, true);
    assert.deepEqual(under.said(), ['SETTINGS ACK']);
  });

  test(`RFC 9113 §3.4: a ${role} ends a connection whose first frame is not SETTINGS`, () => {
    for (const first of [frame(FrameType.PING, 0, 0, Buffer.alloc(8)), frame(FrameType.SETTINGS, FrameFlag.ACK, 0)]) {
      const under = new ConnectionUnderTest(role);
      start(under);
      under.receive(first);
      assert.deepEqual(under.said(), ['GOAWAY PROTOCOL_ERROR (last 0)']);
      assert.equal(under.transport.closed, true);
    }
  });
}

test('RFC 9113 §3.4: whoever does not start with the preface gets no further', () => {
  for (const bytes of ['GET / HTTP/1.1\r\nHost: pod\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r!', '\0']) {
    const server = new ConnectionUnderTest('server');
    server.frames();
    server.receive(Buffer.from(bytes));
    assert.deepEqual(server.said(), ['GOAWAY PROTOCOL_ERROR (last 0)']);
    assert.equal(server.closed?.code, 'HTTP2_PROTOCOL_ERROR');
  }
});

test('bytes may come in pieces of any size', () => {
  for (const most of [1, 2, 3, 7, 8, 9, 10, 24, 100]) {
    const [client, server] = [new ConnectionUnderTest('client'), new ConnectionUnderTest('server')];
    const { stream, recorder } = client.open();
    pump(client, server, most);
    const request = server.requests[0]!;
    request.stream.respond([[':status', '200']], false);
    server.send(request.stream, 1000, 0x62);
    request.stream.end();
    client.send(stream, 1000, 0x61);
    stream.end();
    pump(client, server, most);
    assert.equal(recorder.status(), 200, `${most} at a time`);
    assert.equal(recorder.data.toString(), 'b'.repeat(1000));
    assert.equal(request.recorder.data.toString(), 'a'.repeat(1000));
    assert.deepEqual([recorder.outcome, request.recorder.outcome], ['end', 'end']);
    assert.deepEqual([client.connection.streamCount, server.connection.streamCount], [0, 0]);
  }
});

test('RFC 9113 §6.5.2: bad values of SETTINGS end the connection, unknown settings do not', () => {
  const rows: [settings: [number, number][], said: string][] = [
    [[[2, 2]], 'GOAWAY PROTOCOL_ERROR (last 0)'],
    [[[4, 0x8000_0000]], 'GOAWAY FLOW_CONTROL_ERROR (last 0)'],
    [[[5, 16_383]], 'GOAWAY PROTOCOL_ERROR (last 0)'],
    [[[5, 16_777_216]], 'GOAWAY PROTOCOL_ERROR (last 0)'],
    [[[0x99, 7]], 'SETTINGS ACK'],
    [
      [
        [1, 0],
        [3, 0],
        [4, 0],
        [5, 16_777_215],
        [6, 0],
      ],
      'SETTINGS ACK',
    ],
  ];
  for (const [settings, said] of rows) {
    const client = new ConnectionUnderTest('client');
    client.frames();
    client.receive(settingsFrame(settings));
    assert.deepEqual(client.said(), [said], JSON.stringify(settings));
  }
});

test('RFC 9113 §5.1.2: a client opens no more streams than the peer allows, whatever it assumed at first', () => {
  const client = new ConnectionUnderTest('client', { assumedPeerStreams: 3 });
  assert.equal(client.connection.room, 3);
  client.established([[3, 2]]);
  assert.deepEqual([client.connection.room, client.connection.maxStreams], [2, 2]);
  client.open();
  client.open();
  assert.equal(client.connection.room, 0);
  assert.equal(client.connection.open([[':method', 'CONNECT']], client.recorder()), null);
  client.receive(settingsFrame([[3, 5]]));
  assert.equal(client.connection.room, 3);
  client.receive(settingsFrame([[3, 0]]));
  assert.equal(client.connection.room, 0);
});

test('RFC 9113 §6.5.2: a client does not limit itself when the peer does not', () => {
  const client = new ConnectionUnderTest('client', { assumedPeerStreams: 3 }).established();
  assert.ok(client.connection.room > 1_000_000);
});

test('RFC 9113 §6.9.2: until SETTINGS are acknowledged a peer may send the default window, whatever they said', () => {
  const roles: [Role, Buffer][] = [
    ['server', connectFrame(1)],
    ['client', responseFrame(1, 200)],
  ];
  for (const [role, opening] of roles) {
    const under = new ConnectionUnderTest(role, { initialWindow: 16_384 });
    under.reads = false;
    if (role === 'client') under.open();
    if (role === 'server') under.receive(CLIENT_PREFACE);
    under.frames();
    under.receive(settingsFrame([]), opening, frame(FrameType.DATA, 0, 1, Buffer.alloc(65_535)));
    assert.deepEqual(under.said(), ['SETTINGS ACK']);
    // The peer counts from the smaller window now; this stream, which is in use, keeps the one it had.
    under.receive(frame(FrameType.SETTINGS, FrameFlag.ACK, 0), frame(FrameType.DATA, 0, 1, Buffer.alloc(1)));
    assert.deepEqual(under.said(), ['WINDOW_UPDATE 1 +49151', 'RST_STREAM 1 FLOW_CONTROL_ERROR']);
  }
});

test('RFC 9113 §4.2: a peer with a small MAX_FRAME_SIZE gets small frames', () => {
  const client = new ConnectionUnderTest('client').established([
    [4, 1_000_000],
    [5, 16_384],
  ]);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(1_000_000)));
  const { stream } = client.open();
  client.send(stream, 40_000);
  assert.deepEqual(client.said(), ['HEADERS 1', 'DATA 1 (16384)', 'DATA 1 (16384)', 'DATA 1 (7232)']);
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

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { WindowBudget } from '../../../src/hbone/window-budget.ts';
import {
  ConnectionUnderTest,
  connectFrame,
  frame,
  pump,
  settingsFrame,
  words,
} from './support/connection-under-test.ts';

const KB = 1024;
const MB = 1024 * KB;

/** A client and a server with streams open, answered, and what the server's side of each was given. */
function pair(streams: number, options: ConstructorParameters<typeof ConnectionUnderTest>[1] = {}) {
  const client = new ConnectionUnderTest('client', options);
  const server = new ConnectionUnderTest('server', options);
  const opened = Array.from({ length: streams }, () => client.open());
  pump(client, server);
  for (const { stream } of server.requests) stream.respond([[':status', '200']], false);
  pump(client, server);
  return { client, server, streams: opened, requests: server.requests };
}

/** Uploads on a stream until `total` bytes are there or nothing moves. Returns what arrived. */
function upload({ client, server, streams, requests }: ReturnType<typeof pair>, index: number, total: number): number {
  const { stream } = streams[index]!;
  const { recorder } = requests[index]!;
  const before = recorder.length;
  let sent = 0;
  while (sent < total) {
    const now = client.send(stream, Math.min(total - sent, 100_000));
    pump(client, server);
    if (now === 0) break;
    sent += now;
  }
  pump(client, server);
  return recorder.length - before;
}

test('RFC 9113 §6.9: streams whose readers have stopped hold their own window and nothing else', () => {
  const all = pair(150, { assumedPeerStreams: 150 });
  for (const { recorder } of all.requests.slice(0, 149)) recorder.reads = false;
  // Together far more than the window of the connection.
  for (let i = 0; i < 149; i++) assert.equal(upload(all, i, 1 * MB), 256 * KB);
  assert.equal(upload(all, 149, 50 * MB), 50 * MB);
});

test('RFC 9113 §6.9: a stalled stream goes on where it stopped once it is read', () => {
  const all = pair(1);
  const { recorder, stream } = all.requests[0]!;
  recorder.reads = false;
  assert.equal(upload(all, 0, 1 * MB), 256 * KB);
  assert.equal(all.streams[0]!.stream.sendable(), 0);
  stream.credit(256 * KB);
  recorder.reads = true;
  pump(all.client, all.server);
  assert.equal(all.streams[0]!.recorder.writable, 1);
  assert.equal(upload(all, 0, 1 * MB), 1 * MB);
});

test('RFC 9113 §6.9: more DATA than the window of a stream ends the stream only', () => {
  const server = new ConnectionUnderTest('server', { initialWindow: 100_000 }).established();
  server.receive(connectFrame(1), connectFrame(3));
  for (const { recorder } of server.requests) recorder.reads = false;
  server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(100_000)), frame(FrameType.DATA, 0, 1, Buffer.alloc(1)));
  assert.deepEqual(server.said(), ['RST_STREAM 1 FLOW_CONTROL_ERROR']);
  assert.equal(server.requests[0]!.recorder.outcome, 'FLOW_CONTROL_ERROR');
  server.receive(frame(FrameType.DATA, 0, 3, Buffer.alloc(100_000)));
  assert.equal(server.requests[1]!.recorder.length, 100_000);
});

test('RFC 9113 §6.9.1: more DATA than the window of the connection ends the connection', () => {
  const server = new ConnectionUnderTest('server', { initialWindow: 200_000, connectionWindow: 65_535 }).established();
  server.receive(connectFrame(1));
  server.requests[0]!.recorder.reads = false;
  server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(100_000)));
  assert.deepEqual(server.said(), ['GOAWAY FLOW_CONTROL_ERROR (last 1)']);
});

test('RFC 9113 §5.1: DATA for a stream that is gone counts against the connection, and its credit comes back', () => {
  const server = new ConnectionUnderTest('server', { connectionWindow: 65_536 }).established();
  server.receive(connectFrame(1));
  server.requests[0]!.stream.reset(8);
  server.frames();
  for (let i = 0; i < 100; i++) server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(16_384)));
  const said = server.said();
  assert.equal(said.length, 100);
  assert.ok(said.every((text) => text === 'WINDOW_UPDATE 0 +16384'));
});

test('RFC 9113 §6.9.2: a smaller initial window can leave a stream with less than nothing', () => {
  const client = new ConnectionUnderTest('client').established([[4, 100_000]]);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(10_000_000)));
  const { stream, recorder } = client.open();
  assert.equal(client.send(stream, 80_000), 80_000);
  client.receive(settingsFrame([[4, 30_000]]));
  assert.equal(stream.sendWindow, -50_000);
  assert.equal(stream.sendable(), 0);
  stream.waitForWindow();
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, stream.id, words(50_000)));
  assert.equal(recorder.writable, 0);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, stream.id, words(1)));
  assert.equal(recorder.writable, 1);
  assert.equal(stream.sendable(), 1);
  client.receive(settingsFrame([[4, 30_010]]));
  assert.equal(stream.sendable(), 11);
});

test('RFC 9113 §6.9.2: a larger initial window wakes streams that waited', () => {
  const client = new ConnectionUnderTest('client').established([[4, 0]]);
  const { stream, recorder } = client.open();
  assert.equal(client.send(stream, 10), 0);
  client.receive(settingsFrame([[4, 5]]));
  assert.equal(recorder.writable, 1);
  assert.equal(client.send(stream, 10), 5);
});

test('streams that wait for the window of the connection take turns', () => {
  const client = new ConnectionUnderTest('client').established([[4, 10_000_000]]);
  client.send(client.open().stream, 65_535);
  const streams = [client.open(), client.open(), client.open()];
  for (const { stream, recorder } of streams) {
    // Each has more to send than an update allows.
    recorder.onWritable = () => client.send(stream, 1_000_000);
    recorder.onWritable();
  }
  client.frames();
  const served: string[] = [];
  for (let i = 0; i < 9; i++) {
    client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(1000)));
    served.push(...client.said());
  }
  const [a, b, c] = streams.map(({ stream }) => `DATA ${stream.id} (1000)`);
  assert.deepEqual(served, [a, b, c, a, b, c, a, b, c]);
});

test('a stream that ends while others are woken is not woken', () => {
  const client = new ConnectionUnderTest('client').established([[4, 10_000_000]]);
  client.send(client.open().stream, 65_535);
  const [first, second, third] = [client.open(), client.open(), client.open()];
  for (const { stream } of [first, second, third]) client.send(stream, 1);
  first.recorder.onWritable = () => second.stream.reset(8);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(1000)));
  assert.deepEqual(
    [first, second, third].map(({ recorder }) => recorder.writable),
    [1, 0, 1],
  );
});

test('a transport that does not keep up stops DATA of all streams, and starts it again', () => {
  const client = new ConnectionUnderTest('client').established([[4, 10 * MB]]);
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(100 * MB)));
  client.transport.room = 0;
  const [first, second] = [client.open(), client.open()];
  client.send(first.stream, 5 * MB);
  const { queued } = client.transport;
  assert.ok(queued > 512 * KB && queued < 1 * MB, `${queued} bytes wait`);
  assert.equal(client.send(second.stream, 1), 0);
  // A window does not help as long as nothing leaves.
  client.receive(frame(FrameType.WINDOW_UPDATE, 0, second.stream.id, words(1000)));
  client.transport.makeRoom(queued - 200 * KB);
  assert.deepEqual([first.recorder.writable, second.recorder.writable], [0, 0]);
  client.transport.makeRoom(100 * KB);
  assert.deepEqual([first.recorder.writable, second.recorder.writable], [1, 1]);
  assert.equal(client.send(second.stream, 1), 1);
});

test('receive windows grow while their streams are fast, up to the largest one', () => {
  const budget = new WindowBudget(64 * MB);
  const all = pair(1, { initialWindow: 64 * KB, maxWindow: 1 * MB, budget });
  const { stream } = all.requests[0]!;
  upload(all, 0, 20 * MB);
  assert.equal(stream.windowSize, 1 * MB);
  // The client's side of the stream has one as well.
  assert.equal(budget.used, 1 * MB + 64 * KB);
  all.streams[0]!.stream.reset(8);
  pump(all.client, all.server);
  assert.equal(budget.used, 0);
});

test('receive windows do not grow for a slow stream', () => {
  const all = pair(1, { initialWindow: 64 * KB, maxWindow: 1 * MB });
  for (let i = 0; i < 50; i++) {
    all.client.now += 500;
    all.server.now += 500;
    upload(all, 0, 64 * KB);
  }
  assert.equal(all.requests[0]!.stream.windowSize, 64 * KB);
});

test('receive windows share one budget and give it back with the connection', () => {
  const budget = new WindowBudget(2 * MB);
  const all = pair(4, { initialWindow: 64 * KB, maxWindow: 1 * MB, budget });
  for (let i = 0; i < 4; i++) upload(all, i, 20 * MB);
  const windows = [...all.requests, ...all.streams].map(({ stream }) => stream.windowSize);
  assert.equal(
    windows.reduce((sum, size) => sum + size),
    budget.used,
  );
  assert.ok(Math.max(...windows) > 64 * KB);
  assert.ok(budget.used <= budget.limit, `${budget.used}`);
  all.server.connection.lost('gone');
  all.client.connection.lost('gone');
  assert.equal(budget.used, 0);
});

test('RFC 9113 §6.1: padding counts against both windows, and its credit comes back although nobody takes it', () => {
  const server = new ConnectionUnderTest('server', { initialWindow: 65_535 }).established();
  server.receive(connectFrame(1));
  const { recorder, stream } = server.requests[0]!;
  recorder.reads = false;
  const padded = frame(FrameType.DATA, FrameFlag.PADDED, 1, Buffer.concat([Buffer.from([99, 0x61]), Buffer.alloc(99)]));
  // Many times the window in padding, each frame with one byte of data.
  for (let i = 0; i < 10_000; i++) server.receive(padded);
  assert.equal(recorder.outcome, 'open');
  assert.equal(recorder.length, 10_000);
  const updates = server.said();
  assert.ok(updates.length < 100, `${updates.length} updates`);
  assert.equal(stream.receiveWindow, 65_535 - 10_000 - stream.padding);
});

test('credit for a stream that has ended is not sent', () => {
  const server = new ConnectionUnderTest('server').established();
  server.receive(connectFrame(1), frame(FrameType.DATA, FrameFlag.END_STREAM, 1, Buffer.alloc(10)));
  server.receive(connectFrame(3), frame(FrameType.DATA, 0, 3, Buffer.alloc(10)));
  const third = server.requests[1]!.stream;
  third.reset(8);
  server.frames();
  server.requests[0]!.stream.credit(10);
  third.credit(10);
  assert.deepEqual(server.said(), []);
});

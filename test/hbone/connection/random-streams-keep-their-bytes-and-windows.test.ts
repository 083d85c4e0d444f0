import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLIENT_PREFACE, FrameType, SettingId } from '../../../src/hbone/frames.ts';
import type { Http2Stream } from '../../../src/hbone/stream.ts';
import { WindowBudget } from '../../../src/hbone/window-budget.ts';
import {
  block,
  ConnectionUnderTest,
  connectFrame,
  connectTo,
  frame,
  pump,
  settingsFrame,
} from './support/connection-under-test.ts';
import type { Recorder } from './support/recorder.ts';

const KB = 1024;

/** The same numbers for the same seed, so that a failure comes again. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = Math.imul(seed + 1, 0x9e37_79b1) >>> 0;
  }

  /** From 0 up to, not including, `below`. */
  next(below: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * below);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.next(items.length)]!;
  }
}

/** One direction of a stream: what its sender has to send, and what its receiver has got. */
class Flow {
  readonly length: number;
  readonly fill: number;
  readonly sender: ConnectionUnderTest;
  readonly stream: Http2Stream;
  readonly receiver: Recorder;
  sent = 0;
  ended = false;
  credited = 0;

  constructor(sender: ConnectionUnderTest, stream: Http2Stream, receiver: Recorder, length: number, fill: number) {
    this.sender = sender;
    this.stream = stream;
    this.receiver = receiver;
    this.length = length;
    this.fill = fill;
  }

  /** Sends on as far as it is allowed. */
  go(): void {
    this.sent += this.sender.send(this.stream, this.length - this.sent, this.fill);
    if (this.sent < this.length || this.ended) return;
    this.ended = true;
    this.stream.end();
  }

  /** The reader takes some of what has come. */
  take(bytes: number): void {
    const now = Math.min(bytes, this.receiver.length - this.credited);
    if (now === 0) return;
    this.credited += now;
    this.receiver.stream!.credit(now);
  }
}

/** Streams both ways over one connection whose transports take and bring what they like. */
function runRandomStreams(seed: number): void {
  const random = new Random(seed);
  const options = {
    initialWindow: random.pick([1000, 16 * KB, 256 * KB]),
    maxWindow: random.pick([256 * KB, 4096 * KB]),
    connectionWindow: random.pick([65_535, 300 * KB, 16_384 * KB]),
    maxFrameSize: random.pick([16_384, 1024 * KB]),
  };
  const budget = new WindowBudget(random.pick([0, 100 * KB, 10_000 * KB]));
  const client = new ConnectionUnderTest('client', { ...options, budget });
  const server = new ConnectionUnderTest('server', { ...options, budget });
  client.reads = server.reads = false;
  pump(client, server);
  for (const under of [client, server]) under.transport.room = random.pick([0, 100 * KB, Number.POSITIVE_INFINITY]);

  const flows: Flow[] = [];
  const resets = new Set<Recorder>();
  const open = () => {
    const { stream, recorder } = client.open();
    for (const under of [client, server]) under.transport.makeRoom(1000 * KB);
    pump(client, server);
    const request = server.requests.at(-1)!;
    request.stream.respond([[':status', '200']], false);
    const length = () => random.pick([0, 1, 5000, 100 * KB, 600 * KB]);
    const up = new Flow(client, stream, request.recorder, length(), 0x61);
    const down = new Flow(server, request.stream, recorder, length(), 0x62);
    recorder.onWritable = () => up.go();
    request.recorder.onWritable = () => down.go();
    flows.push(up, down);
    up.go();
    down.go();
  };
  const transfer = () => {
    const [from, to] = random.next(2) === 0 ? [client, server] : [server, client];
    from.transport.makeRoom(random.pick([0, 100, 50 * KB, 1000 * KB]));
    to.transport.deliver(from.transport.take(), random.pick([1 + random.next(20), 1000, 100 * KB, 256 * KB]));
  };
  for (let step = 0; step < 200; step++) {
    client.now += random.next(50);
    server.now = client.now;
    const what = random.next(100);
    assert.deepEqual([client.closed, server.closed], [undefined, undefined], `seed ${seed}`);
    if (what < 10 && client.connection.streamCount < 20) open();
    else if (what < 60) transfer();
    else if (what < 95 && flows.length > 0) random.pick(flows).take(random.pick([1, 1000, 100 * KB, 1000 * KB]));
    else if (what < 97 && flows.length > 0) {
      const { stream, receiver } = random.pick(flows);
      resets.add(receiver).add((stream.handler as Recorder) ?? receiver);
      stream.reset(8);
    } else if (what < 98) client.connection.keepAlive(0, 1_000_000);
  }
  // From here on everybody reads: all that was not reset must arrive.
  for (let round = 0; round < 5000; round++) {
    for (const under of [client, server]) under.transport.makeRoom(10_000 * KB);
    pump(client, server);
    for (const flow of flows) flow.take(Number.POSITIVE_INFINITY);
    if (client.connection.streamCount === 0 && server.connection.streamCount === 0) break;
  }
  const what = `seed ${seed}`;
  assert.deepEqual([client.closed, server.closed], [undefined, undefined], what);
  for (const { length, fill, receiver, stream } of flows) {
    if (receiver.reset !== null || resets.has(receiver) || resets.has(stream.handler as Recorder)) continue;
    assert.equal(receiver.length, length, what);
    assert.ok(receiver.data.equals(Buffer.alloc(length, fill)), what);
    assert.equal(receiver.outcome, 'end', what);
  }
  assert.deepEqual([client.connection.streamCount, server.connection.streamCount], [0, 0], what);
  assert.equal(budget.used, 0, what);
  // What the other side has let each send is what it believes to have been let.
  for (const [from, to] of [
    [client, server],
    [server, client],
  ] as const) {
    assert.ok(from.connection.sendWindow > 0, what);
    assert.equal(from.connection.congested, false, what);
    assert.equal(to.transport.queued, 0, what);
  }
}

test('streams with random lengths, windows, stalls and resets keep their bytes, and none is forgotten', () => {
  for (let seed = 0; seed < 40; seed++) runRandomStreams(seed);
});

/** Frames that are nearly right. */
function randomFrame(random: Random): Buffer {
  const streamId = random.pick([0, 0, 1, 1, 2, 3, 5, 7, 0x7fff_ffff]);
  const flags = random.pick([0, 0, 1, 4, 5, 8, 9, 0x20, 0x2d, 0xff]);
  const payload = Buffer.from(Array.from({ length: random.pick([0, 1, 4, 5, 6, 8, 17, 300]) }, () => random.next(256)));
  switch (random.next(8)) {
    case 0:
    case 1:
      return connectFrame(1 + 2 * random.next(100), random.pick([0, 1]));
    case 2:
      return frame(FrameType.HEADERS, flags, streamId, block(connectTo('a:1')).subarray(0, random.next(12)));
    case 3:
      return frame(FrameType.DATA, flags, streamId, payload);
    case 4:
      return settingsFrame([[random.pick(Object.values(SettingId)), random.pick([0, 1, 100, 16_384, 0xffff_ffff])]]);
    default:
      return frame(random.next(11), flags, streamId, payload);
  }
}

test('whatever frames come, nothing is thrown, nothing grows, and what is open can be closed', () => {
  for (let seed = 0; seed < 1000; seed++) {
    const random = new Random(seed);
    const budget = new WindowBudget(100 * KB);
    const role = random.pick(['client', 'server'] as const);
    const under = new ConnectionUnderTest(role, { budget, maxConcurrentStreams: 10 });
    if (role === 'client') for (let i = random.next(4); i > 0; i--) under.open();
    if (role === 'server') under.receive(CLIENT_PREFACE);
    if (random.next(10) > 0) under.receive(settingsFrame([]));
    const frames = Array.from({ length: 40 }, () => randomFrame(random));
    const bytes = Buffer.concat(frames);
    for (let i = random.next(3); i > 0; i--) bytes[random.next(bytes.length)] = random.next(256);
    under.transport.deliver(bytes, random.pick([1, 10, 1000, 256 * KB]));
    assert.ok(under.connection.streamCount <= 10);
    assert.equal(under.connection.isClosed, under.closed !== undefined);
    under.connection.lost('over');
    assert.equal(under.connection.streamCount, 0);
    assert.equal(budget.used, 0);
    const { recorder } = under.requests.at(-1) ?? { recorder: null };
    assert.notEqual(recorder?.outcome, 'open');
    // Every frame that was sent is whole.
    under.frames();
  }
});

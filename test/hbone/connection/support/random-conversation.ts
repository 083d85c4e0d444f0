import assert from 'node:assert/strict';
import type { HeaderField } from '../../../../src/hbone/hpack.ts';
import { ErrorCode } from '../../../../src/hbone/http-error.ts';
import type { Http2Stream } from '../../../../src/hbone/stream.ts';
import { WindowBudget } from '../../../../src/hbone/window-budget.ts';
import type { Random } from '../../codec/support/random.ts';
import { ConnectionUnderTest, type Role } from './connection-under-test.ts';
import { contentByte, ModelPeer, type ModelStream, randomHeaders } from './model-peer.ts';
import type { Recorder } from './recorder.ts';

/** A stream as the one knows it who uses the connection under test. */
interface Use {
  readonly stream: Http2Stream;
  readonly recorder: Recorder;
  readonly headersSent: HeaderField[][];
  answered: boolean;
  ended: boolean;
  reset: boolean;
  /** Bytes that it has to send, and has sent. */
  wanted: number;
  sent: number;
  credited: number;
}

/** Most streams in a conversation, and bytes that one of them sends. */
const STREAMS = 12;
const BYTES = 300_000;

/** Longer than a conversation takes: its peer always answers in the end. */
const PATIENCE = 1e9;

/** A connection under test that is used at random, and a model of its peer that talks to it at random. */
export class RandomConversation {
  readonly under: ConnectionUnderTest;
  readonly model: ModelPeer;
  /** All that the peer has sent and the connection has read. */
  readonly delivered: Buffer[] = [];
  readonly #random: Random;
  readonly #budget: WindowBudget;
  readonly #isServer: boolean;
  readonly #connectionWindow: number;
  readonly #uses: Use[] = [];
  #inFlight: Buffer = Buffer.alloc(0);
  #seconds = 0;

  constructor(random: Random, role: Role) {
    this.#random = random;
    this.#isServer = role === 'server';
    this.#budget = new WindowBudget(random.pick([0, 1 << 20, 1 << 26]));
    this.#connectionWindow = random.pick([65_535, 1 << 24]);
    this.under = new ConnectionUnderTest(role, {
      initialWindow: random.pick([1000, 65_535, 262_144]),
      maxWindow: 4 << 20,
      connectionWindow: this.#connectionWindow,
      maxFrameSize: random.pick([16_384, 1 << 20]),
      maxConcurrentStreams: random.pick([2, 5, 200]),
      budget: this.#budget,
    });
    this.under.reads = false;
    this.model = new ModelPeer(random, this.#isServer);
  }

  /** Talks for so many steps. */
  talk(steps: number): void {
    for (let step = 0; step < steps; step++) {
      if (this.#random.chance(0.5)) this.#peerActs();
      else this.#userActs();
      this.under.now += this.#random.int(100);
      if (this.#random.chance(0.1)) this.#timePasses();
      this.#exchange(this.#random.pick([0, 1, 20, 1000, 1 << 20]));
    }
    this.exchangeAll();
  }

  /** Until nothing is under way any more. */
  exchangeAll(): void {
    this.#listen();
    do this.#exchange(Number.POSITIVE_INFINITY);
    while (this.#inFlight.length > 0);
  }

  /** Lets everything come to its end, and fails unless all that was not reset has arrived. */
  finish(): void {
    const { model } = this;
    model.acknowledgeSettings();
    model.windowUpdate(null, 1 << 24);
    for (const stream of model.streams.values()) model.windowUpdate(stream, 1 << 23);
    // With these windows more is sent than a transport takes that takes nothing.
    const isBlocked = this.#random.chance(0.5);
    if (isBlocked) {
      this.under.transport.room = 0;
      for (const use of this.#live()) use.wanted += BYTES;
    }
    for (const use of this.#uses) this.#credit(use, Number.POSITIVE_INFINITY);
    this.exchangeAll();
    for (const use of this.#live()) this.#sendOn(use);
    if (isBlocked) this.#makeRoom();
    this.exchangeAll();
    // Again, because SETTINGS may have come meanwhile.
    model.acknowledgeSettings();
    this.exchangeAll();
    this.#assertCredited();
    for (const use of this.#live()) {
      if (!use.answered) this.#answer(use, false);
      this.#sendOn(use);
      if (!use.ended) this.#end(use);
    }
    this.exchangeAll();
    for (const stream of model.sendable()) model.data(stream, 0, true);
    this.exchangeAll();
    assert.equal(this.under.closed, undefined, 'it has ended');
    model.assertAnswered();
    for (const use of this.#uses) this.#assertWhole(use);
    // Answers to what the peer resets while they are on their way are all that is left open.
    for (const { id, ended, reset } of model.streams.values()) {
      if (this.#uses.some(({ stream }) => stream.id === id) || reset || ended) continue;
      assert.fail(`stream ${id} is not known to the other side`);
    }
  }

  /** Ends it by the peer's leaving, or by the own, at once or when all streams have ended. */
  close(): void {
    const { connection } = this.under;
    switch (this.#random.int(4)) {
      case 0:
      case 1:
        this.model.goAway();
        break;
      case 2:
        connection.drain();
        // The peer is waited for or is not.
        if (this.#random.chance(0.5)) this.#timePasses();
        break;
      default:
        connection.abort(ErrorCode.NO_ERROR, 'enough');
    }
    for (const use of this.#live()) this.#reset(use);
    this.exchangeAll();
    assert.equal(this.under.closed, null, 'it does not end');
    assert.equal(this.model.wentAway, 'NO_ERROR');
    this.assertFreed();
  }

  /** What must hold of every connection that has ended. */
  assertFreed(): void {
    const { connection, transport } = this.under;
    assert.ok(connection.isClosed && transport.closed);
    assert.equal(connection.streamCount, 0);
    assert.equal(this.#budget.used, 0);
    for (const { recorder, ended, reset } of this.#uses) {
      assert.ok(recorder.reset !== null || reset || (recorder.ended && ended), 'a stream that was told nothing');
    }
  }

  /** How a stream ended for who uses it. */
  outcome(streamId: number): string {
    const use = this.#uses.find(({ stream }) => stream.id === streamId);
    return use === undefined ? 'unknown' : use.recorder.outcome;
  }

  #peerActs(): void {
    const { model } = this;
    const random = this.#random;
    const sendable = model.sendable();
    const any = [...model.streams.values()];
    switch (random.int(12)) {
      case 0:
      case 1:
        if (model.streams.size < STREAMS || !this.#isServer) model.headers(random.chance(0.1));
        break;
      case 2:
        if (random.chance(0.3)) model.sendSettings();
        else model.acknowledgeSettings();
        break;
      case 3:
        if (random.chance(0.5)) model.ping();
        else model.noise();
        break;
      case 4:
        if (any.length > 0 && random.chance(0.3)) model.reset(random.pick(any));
        break;
      case 5:
      case 6:
        model.windowUpdate(random.chance(0.4) || any.length === 0 ? null : random.pick(any), 1 + random.int(100_000));
        break;
      case 7: {
        const waiting = any.filter(({ begun, reset }) => !begun && !reset);
        if (!this.#isServer && waiting.length > 0) model.interim(random.pick(waiting));
        break;
      }
      default:
        if (sendable.length === 0) break;
        model.data(random.pick(sendable), random.pick([0, 1, 1000, 16_384, 70_000]), random.chance(0.1));
    }
  }

  #userActs(): void {
    const random = this.#random;
    const live = this.#live();
    if (!this.#isServer && this.#uses.length < STREAMS && random.chance(0.2)) this.#open();
    if (live.length === 0) return;
    const use = random.pick(live);
    switch (random.int(8)) {
      case 0:
        if (!use.answered) this.#answer(use, random.chance(0.1));
        break;
      case 1:
        if (random.chance(0.3)) this.#reset(use);
        break;
      case 2:
        if (random.chance(0.3) && use.answered && use.sent === use.wanted && !use.ended) this.#end(use);
        break;
      case 3:
      case 4:
        if (!use.answered || use.ended || use.wanted > BYTES) break;
        use.wanted += random.pick([1, 5000, 100_000]);
        this.#sendOn(use);
        break;
      default:
        this.#credit(use, random.pick([1, 1000, 100_000]));
    }
  }

  /** What the owner of a connection does every second or so, which may be late. */
  #timePasses(): void {
    // A peer that leaves a server nothing to send for longer is left by it.
    if (this.#seconds++ % 5 === 4) this.model.windowUpdate(null, 1 << 22);
    this.under.now += this.#random.pick([1, 1000, 10_000]);
    this.under.connection.keepAlive(this.#random.pick([100, 10_000, 1_000_000]), PATIENCE);
  }

  /** The transport takes what waits in it; those who wait for that go on. */
  #makeRoom(): void {
    const { connection, transport } = this.under;
    assert.ok(transport.queued < 1 << 20, `${transport.queued} bytes wait`);
    transport.makeRoom(Number.POSITIVE_INFINITY);
    assert.equal(connection.congested, false);
  }

  #open(): void {
    const fields = randomHeaders(this.#random, 'request');
    const recorder = this.under.recorder();
    const stream = this.under.connection.open(fields, recorder);
    if (stream === null) return;
    recorder.stream = stream;
    this.#use(stream, recorder, true).headersSent.push(fields);
  }

  #answer(use: Use, end: boolean): void {
    const fields = randomHeaders(this.#random, 'response');
    use.headersSent.push(fields);
    use.answered = true;
    use.ended = end;
    use.stream.respond(fields, end);
  }

  #sendOn(use: Use): void {
    if (use.ended || !use.answered || use.reset || use.recorder.reset !== null) return;
    const [turn, sendable] = [use.stream.turn(), use.stream.sendable()];
    assert.ok(turn <= sendable && turn > 0 === sendable > 0, `a turn of ${turn} bytes, ${sendable} sendable`);
    use.sent += this.under.send(use.stream, use.wanted - use.sent, use.stream.id & 0xff);
  }

  #end(use: Use): void {
    use.wanted = use.sent;
    use.ended = true;
    use.stream.end();
  }

  #reset(use: Use): void {
    const code = this.#random.pick([0, 8, 10]);
    this.model.allowReset(use.stream.id, code);
    use.reset = true;
    use.stream.reset(code);
  }

  #credit(use: Use, most: number): void {
    const bytes = Math.min(most, use.recorder.length - use.credited);
    if (bytes === 0 || use.reset || use.recorder.reset !== null) return;
    use.credited += bytes;
    use.stream.credit(bytes);
  }

  /** Streams that may be used. */
  #live(): Use[] {
    return this.#uses.filter(
      ({ recorder, reset, ended }) => !reset && recorder.reset === null && !(ended && recorder.ended),
    );
  }

  #use(stream: Http2Stream, recorder: Recorder, answered: boolean): Use {
    const counts = { ended: false, reset: false, wanted: 0, sent: 0, credited: 0 };
    const use: Use = { stream, recorder, headersSent: [], answered, ...counts };
    recorder.onWritable = () => this.#sendOn(use);
    this.#uses.push(use);
    return use;
  }

  /** Has the connection read so many bytes of what the peer has said, in pieces, and the peer all that it answers. */
  #exchange(bytes: number): void {
    this.#inFlight = Buffer.concat([this.#inFlight, this.model.take()]);
    const arriving = this.#inFlight.subarray(0, bytes);
    this.#inFlight = this.#inFlight.subarray(arriving.length);
    this.delivered.push(arriving);
    this.under.transport.deliver(
      arriving,
      this.#random.pick(arriving.length < 5000 ? [1, 3, 100] : [100, 5000, 1 << 18]),
    );
    if (this.#isServer) {
      const { requests } = this.under;
      for (const { stream, recorder } of requests.slice(this.#uses.length)) this.#use(stream, recorder, false);
    }
    this.#listen();
    this.#inFlight = Buffer.concat([this.#inFlight, this.model.take()]);
  }

  #listen(): void {
    this.model.receive(this.under.frames());
  }

  /** What was taken may be sent again, but for what is held back until it is worth a frame. */
  #assertCredited(): void {
    const { model } = this;
    assert.ok(model.sendWindow >= this.#connectionWindow >> 1, `a window of ${model.sendWindow} for the connection`);
    for (const { id, sendWindow } of model.sendable()) {
      assert.ok(sendWindow >= model.theirs.initialWindow >> 1, `a window of ${sendWindow} for stream ${id}`);
    }
  }

  #assertWhole(use: Use): void {
    const { stream, recorder } = use;
    const seen = this.model.streams.get(stream.id);
    assert.ok(seen !== undefined, `stream ${stream.id} was never announced`);
    const data = recorder.data;
    for (let at = 0; at < data.length; at++) {
      if (data[at] !== contentByte(stream.id, at)) assert.fail(`stream ${stream.id}: wrong byte at ${at}`);
    }
    this.#assertHeaders(use, seen);
    if (use.reset || seen.reset) {
      assert.ok(data.length <= seen.sent && seen.received <= use.sent);
      return;
    }
    assert.equal(recorder.reset, null, `stream ${stream.id}: ${recorder.reset?.detail}`);
    assert.equal(data.length, seen.sent, `stream ${stream.id}: bytes that came`);
    assert.equal(seen.received, use.sent, `stream ${stream.id}: bytes that went`);
    assert.deepEqual([recorder.ended, seen.endedByOther], [seen.ended, use.ended], `stream ${stream.id}: ends`);
    assert.deepEqual(seen.headersReceived, use.headersSent, `stream ${stream.id}: headers that went`);
  }

  /** Header lists must be right on every stream: a table that is out of step shows anywhere. */
  #assertHeaders({ stream, recorder, reset }: Use, seen: ModelStream): void {
    let came: HeaderField[][] = recorder.responses.map(({ status, headers }) => [
      [':status', String(status)],
      ...headers,
    ]);
    // Interim responses and trailers go no further.
    const sent = seen.headersSent.filter(
      ([first]) => first !== undefined && /^:(?:method|authority|status,[2-9])/.test(first.join()),
    );
    if (this.#isServer) {
      const { head } = this.under.requests.find((request) => request.stream === stream)!;
      assert.ok(head.kind !== 'malformed');
      if (head.kind === 'other-method') came = [sent[0]!, ...came];
      else came = [[[':method', 'CONNECT'], [':authority', head.authority], ...head.headers], ...came];
    }
    const complete = !reset && !seen.reset;
    assert.deepEqual(came, complete ? sent : sent.slice(0, came.length), `stream ${stream.id}: headers that came`);
  }
}

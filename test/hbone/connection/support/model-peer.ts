import assert from 'node:assert/strict';
import {
  CLIENT_PREFACE,
  DEFAULT_WINDOW_SIZE,
  FrameFlag,
  FrameType,
  frameLength,
  frameType,
  readUint16,
  readUint32,
  SettingId,
} from '../../../../src/hbone/frames.ts';
import { type HeaderField, HpackDecoder, HpackEncoder } from '../../../../src/hbone/hpack.ts';
import { errorCodeName } from '../../../../src/hbone/http-error.ts';
import { decodeBlock, encodeBlock } from '../../codec/support/blocks.ts';
import type { Random } from '../../codec/support/random.ts';
import { describe, type Frame, frame, settingsFrame, words } from './connection-under-test.ts';

const { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } = FrameType;
const { ACK, END_STREAM, END_HEADERS, PADDED, PRIORITY: HAS_PRIORITY } = FrameFlag;

/** A stream as the model knows it. */
export interface ModelStream {
  readonly id: number;
  /** What the model may still send, and what it has let the other side send. */
  sendWindow: number;
  receiveWindow: number;
  /** The model has sent its request, or its answer. */
  begun: boolean;
  /** END_STREAM was sent, was received. */
  ended: boolean;
  endedByOther: boolean;
  /** RST_STREAM was sent or received. */
  reset: boolean;
  /** Bytes of DATA without padding. */
  sent: number;
  received: number;
  /** Header lists that were sent and should arrive, and those that arrived. */
  readonly headersSent: HeaderField[][];
  readonly headersReceived: HeaderField[][];
}

/** Byte `at` of what the model sends on a stream. */
export function contentByte(streamId: number, at: number): number {
  return (streamId * 31 + at * 7 + (at >> 8)) & 0xff;
}

/**
 * The other side of a connection under test: sends frames that RFC 9113 allows, of every kind and in every shape, and
 * judges every frame that it gets by the same rules. `octets` are for the connection under test.
 */
export class ModelPeer {
  readonly streams = new Map<number, ModelStream>();
  /** What the other side announced. */
  readonly theirs = { initialWindow: DEFAULT_WINDOW_SIZE, maxFrameSize: 16_384, maxStreams: Number.POSITIVE_INFINITY };
  /** Codes that the other side may reset a stream with. */
  readonly resetsAllowed = new Map<number, Set<string>>();
  /** What the other side lets it send on the connection. */
  sendWindow = DEFAULT_WINDOW_SIZE;
  /** The code of the GOAWAY that came. */
  wentAway: string | null = null;
  readonly #random: Random;
  readonly #isClient: boolean;
  readonly #encoder: HpackEncoder;
  readonly #decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
  #octets: Buffer[] = [];
  #receiveWindow = DEFAULT_WINDOW_SIZE;
  /** Settings that were sent and not acknowledged yet, and those that hold. */
  readonly #unacknowledged: [id: number, value: number][][] = [];
  readonly #own = { initialWindow: DEFAULT_WINDOW_SIZE, maxFrameSize: 16_384 };
  /** INITIAL_WINDOW_SIZE of SETTINGS that are not acknowledged. */
  readonly #settingsToAcknowledge: number[] = [];
  readonly #pings: string[] = [];
  #nextId = 1;
  #lastTheirId = 0;
  #block: { id: number; flags: number; parts: Buffer[] } | null = null;

  /** `isClient`: the connection under test is a server. */
  constructor(random: Random, isClient: boolean) {
    this.#random = random;
    this.#isClient = isClient;
    this.#encoder = new HpackEncoder({ maxTableSize: random.pick([0, 100, 4096]) });
    if (isClient) this.#octets.push(Buffer.from(CLIENT_PREFACE));
    this.sendSettings();
  }

  /** What it has said since the last call. */
  take(): Buffer {
    const octets = Buffer.concat(this.#octets);
    this.#octets = [];
    return octets;
  }

  send(...frames: readonly Buffer[]): void {
    for (const each of frames) {
      if (frameType(each, 0) === DATA) this.sendWindow -= frameLength(each, 0);
      this.#octets.push(each);
    }
  }

  /** Streams on which it may still send. */
  sendable(): ModelStream[] {
    return [...this.streams.values()].filter(({ begun, ended, reset }) => begun && !ended && !reset);
  }

  openStreams(): number {
    return [...this.streams.values()].filter(({ ended, endedByOther, reset }) => !reset && !(ended && endedByOther))
      .length;
  }

  sendSettings(): void {
    const random = this.#random;
    const settings: [number, number][] = [];
    if (random.chance(0.5)) settings.push([SettingId.INITIAL_WINDOW_SIZE, random.pick([0, 1, 1000, 65_535, 500_000])]);
    if (random.chance(0.3)) settings.push([SettingId.MAX_FRAME_SIZE, random.pick([16_384, 20_000, 0xffffff])]);
    if (random.chance(0.3)) settings.push([SettingId.HEADER_TABLE_SIZE, random.pick([0, 64, 4096, 100_000])]);
    if (random.chance(0.2)) settings.push([SettingId.MAX_HEADER_LIST_SIZE, 65_536]);
    if (random.chance(0.2)) settings.push([0x4242, random.int(1 << 30)]);
    this.#unacknowledged.push(settings);
    this.send(settingsFrame(settings));
  }

  /** Until then the other side may take more than the model is sure of. */
  get hasAcknowledged(): boolean {
    return this.#settingsToAcknowledge.length === 0;
  }

  acknowledgeSettings(): void {
    for (const window of this.#settingsToAcknowledge.splice(0)) {
      this.send(frame(SETTINGS, ACK, 0));
      const change = window - this.theirs.initialWindow;
      for (const stream of this.streams.values()) stream.sendWindow += change;
      this.theirs.initialWindow = window;
    }
  }

  ping(): void {
    const opaque = Buffer.from(this.#random.octets(8));
    this.#pings.push(opaque.toString('hex'));
    this.send(frame(PING, 0, 0, opaque));
  }

  /** A request (as a client), an answer, or trailers when that was sent before. Null when there is no stream for it. */
  headers(end: boolean): ModelStream | null {
    const random = this.#random;
    let stream: ModelStream | undefined;
    if (this.#isClient && (this.streams.size === 0 || random.chance(0.7))) {
      stream = this.#add(this.#nextId);
      // Ids may be left out (RFC 9113 §5.1.1).
      this.#nextId += random.chance(0.1) ? 4 : 2;
      if (this.openStreams() > this.theirs.maxStreams) this.#mayReset(stream.id, 'REFUSED_STREAM');
    } else {
      const candidates = [...this.streams.values()].filter(({ ended, reset }) => !ended && !reset);
      if (candidates.length === 0) return null;
      stream = random.pick(candidates);
    }
    const trailers = stream.begun;
    const fields = randomHeaders(random, trailers ? 'trailers' : this.#isClient ? 'request' : 'response');
    const endStream = end || trailers;
    stream.begun = true;
    stream.ended = endStream;
    stream.headersSent.push(fields);
    this.sendBlock(stream.id, encodeBlock(this.#encoder, fields), endStream);
    return stream;
  }

  /** A header block in the shape of an interim answer. */
  interim(stream: ModelStream): void {
    const fields: HeaderField[] = [
      [':status', '103'],
      ['link', this.#random.pick(['a', 'b'])],
    ];
    stream.headersSent.push(fields);
    this.sendBlock(stream.id, encodeBlock(this.#encoder, fields), false);
  }

  encode(fields: HeaderField[]): Uint8Array {
    return encodeBlock(this.#encoder, fields);
  }

  /** Cuts the block into frames anywhere, with padding and priority fields. */
  sendBlock(id: number, block: Uint8Array, end: boolean): void {
    const random = this.#random;
    const parts = [Buffer.from(block)];
    while (parts.length < 5 && random.chance(0.2)) {
      const last = parts.pop()!;
      const cut = random.int(last.length + 1);
      parts.push(last.subarray(0, cut), last.subarray(cut));
    }
    for (const [i, part] of parts.entries()) {
      let flags = i === parts.length - 1 ? END_HEADERS : 0;
      if (i > 0) {
        this.send(frame(CONTINUATION, flags, id, part));
        continue;
      }
      let payload: Buffer = part;
      if (end) flags |= END_STREAM;
      if (random.chance(0.2)) {
        flags |= HAS_PRIORITY;
        payload = Buffer.concat([random.octets(5), payload]);
      }
      if (random.chance(0.2)) {
        flags |= PADDED;
        payload = padded(payload, random.int(256));
      }
      this.send(frame(HEADERS, flags, id, payload));
    }
  }

  /** As much of `length` as the windows allow, in one frame. */
  data(stream: ModelStream, length: number, end: boolean): void {
    const random = this.#random;
    const padding = random.chance(0.2) ? random.int(256) : -1;
    const room = Math.min(stream.sendWindow, this.sendWindow, this.theirs.maxFrameSize) - (padding + 1);
    if (room < 0) return;
    const payload = this.content(stream, Math.min(length, room));
    stream.sendWindow -= payload.length + padding + 1;
    stream.ended = end;
    const flags = (end ? END_STREAM : 0) | (padding >= 0 ? PADDED : 0);
    this.send(frame(DATA, flags, stream.id, padding >= 0 ? padded(payload, padding) : payload));
  }

  /** The next bytes of a stream. */
  content(stream: ModelStream, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let i = 0; i < length; i++) bytes[i] = contentByte(stream.id, stream.sent + i);
    stream.sent += length;
    return bytes;
  }

  reset(stream: ModelStream): void {
    stream.reset = true;
    this.send(frame(RST_STREAM, 0, stream.id, words(this.#random.int(20))));
  }

  windowUpdate(stream: ModelStream | null, increment: number): void {
    if (stream === null) this.#receiveWindow += increment;
    else stream.receiveWindow += increment;
    this.send(frame(WINDOW_UPDATE, 0, stream?.id ?? 0, words(increment)));
  }

  /** What may come at any time and means nothing. */
  noise(): void {
    const random = this.#random;
    if (random.chance(0.5)) this.send(frame(PRIORITY, random.int(256), 1 + random.int(100), random.octets(5)));
    else this.send(frame(0x20 + random.int(200), random.int(256), random.int(100), random.octets(random.int(50))));
  }

  goAway(): void {
    this.send(frame(GOAWAY, 0, 0, Buffer.concat([words(this.#lastTheirId, 0), Buffer.from('bye')])));
  }

  /** An id for a request of its own making. */
  takeId(): number {
    const id = this.#nextId;
    this.#nextId += 2;
    return id;
  }

  /**
   * A breach follows, on a stream or of the connection (null): the other side has to reset that stream with this code, and
   * with no other. Windows no longer count there, because the breach may be about them.
   */
  breaks(streamId: number | null, code: string): void {
    this.#receiveWindow = Number.POSITIVE_INFINITY;
    if (streamId === null) return;
    this.resetsAllowed.set(streamId, new Set([code]));
    const stream = this.streams.get(streamId);
    if (stream !== undefined) {
      stream.receiveWindow = Number.POSITIVE_INFINITY;
      return;
    }
    this.#add(streamId).ended = true;
    if (this.openStreams() > this.theirs.maxStreams) this.#mayReset(streamId, 'REFUSED_STREAM');
  }

  allowReset(streamId: number, code: number): void {
    this.#mayReset(streamId, errorCodeName(code));
  }

  /** Judges what the connection under test has said. */
  receive(frames: readonly Frame[]): void {
    for (const received of frames) {
      try {
        this.#judge(received);
      } catch (cause) {
        throw new Error(`it said ${describe(received)}: ${(cause as Error).message}`, { cause });
      }
    }
  }

  /** Everything was delivered: nothing may be left unanswered. */
  assertAnswered(): void {
    assert.deepEqual(this.#pings, [], 'PINGs without an answer');
    assert.equal(this.#unacknowledged.length, 0, 'SETTINGS without an acknowledgement');
    assert.equal(this.#block, null, 'a header block without an end');
  }

  #judge({ type, flags, streamId, payload }: Frame): void {
    assert.equal(this.wentAway === null || this.wentAway === 'NO_ERROR', true, 'a frame behind the last GOAWAY');
    if (this.#block !== null) assert.deepEqual([type, streamId], [CONTINUATION, this.#block.id], 'inside a block');
    assert.ok(payload.length <= Math.max(this.#own.maxFrameSize, this.#pending(SettingId.MAX_FRAME_SIZE)), 'too large');
    switch (type) {
      case SETTINGS:
        if ((flags & ACK) === 0) this.#theirSettings(payload);
        else this.#applyOwn();
        break;
      case PING:
        if ((flags & ACK) === 0) this.send(frame(PING, ACK, 0, payload));
        else assert.equal(payload.toString('hex'), this.#pings.shift());
        break;
      case GOAWAY:
        this.wentAway = errorCodeName(readUint32(payload, 4));
        break;
      case WINDOW_UPDATE:
        this.#theirCredit(streamId, readUint32(payload, 0));
        break;
      case RST_STREAM:
        this.#theirReset(streamId, errorCodeName(readUint32(payload, 0)));
        break;
      case DATA:
        this.#theirData(this.#live(streamId), payload.length, (flags & END_STREAM) !== 0);
        break;
      case HEADERS:
        this.#block = { id: streamId, flags, parts: [payload] };
        if ((flags & END_HEADERS) !== 0) this.#theirHeaders();
        break;
      case CONTINUATION:
        assert.ok(this.#block !== null, 'without HEADERS');
        this.#block.parts.push(payload);
        if ((flags & END_HEADERS) !== 0) this.#theirHeaders();
        break;
      default:
        assert.fail('no frame that it has a reason to send');
    }
  }

  #theirSettings(payload: Buffer): void {
    assert.ok(this.hasAcknowledged, 'SETTINGS before those of before were acknowledged');
    let window = this.theirs.initialWindow;
    for (let at = 0; at < payload.length; at += 6) {
      const value = readUint32(payload, at + 2);
      const id = readUint16(payload, at);
      if (id === SettingId.INITIAL_WINDOW_SIZE) window = value;
      if (id === SettingId.MAX_FRAME_SIZE) this.theirs.maxFrameSize = value;
      if (id === SettingId.MAX_CONCURRENT_STREAMS) this.theirs.maxStreams = value;
    }
    this.#settingsToAcknowledge.push(window);
  }

  /** The other side has applied the oldest of the own SETTINGS. */
  #applyOwn(): void {
    const settings = this.#unacknowledged.shift();
    assert.ok(settings !== undefined, 'an acknowledgement too many');
    for (const [id, value] of settings) {
      if (id === SettingId.HEADER_TABLE_SIZE) this.#decoder.setMaxTableSize(value);
      if (id === SettingId.MAX_FRAME_SIZE) this.#own.maxFrameSize = value;
      if (id !== SettingId.INITIAL_WINDOW_SIZE) continue;
      for (const stream of this.streams.values()) stream.receiveWindow += value - this.#own.initialWindow;
      this.#own.initialWindow = value;
    }
  }

  #pending(setting: number): number {
    return Math.max(0, ...this.#unacknowledged.flat().map(([id, value]) => (id === setting ? value : 0)));
  }

  #theirCredit(streamId: number, increment: number): void {
    assert.ok(increment > 0);
    if (streamId === 0) {
      this.sendWindow += increment;
      assert.ok(this.sendWindow <= 0x7fff_ffff);
      return;
    }
    const stream = this.#known(streamId);
    stream.sendWindow += increment;
    assert.ok(stream.sendWindow <= 0x7fff_ffff);
  }

  #theirReset(streamId: number, code: string): void {
    const stream = this.#known(streamId);
    assert.ok(this.resetsAllowed.get(streamId)?.has(code), 'without a reason');
    stream.reset = true;
  }

  #theirData(stream: ModelStream, length: number, end: boolean): void {
    stream.receiveWindow -= length;
    this.#receiveWindow -= length;
    // A window may have become negative by SETTINGS, but nothing may be sent into it (RFC 9113 §6.9.2).
    assert.ok(length === 0 || stream.receiveWindow >= 0, 'beyond the window of the stream');
    assert.ok(length === 0 || this.#receiveWindow >= 0, 'beyond the window of the connection');
    stream.received += length;
    stream.endedByOther = end;
  }

  #theirHeaders(): void {
    const { id, flags, parts } = this.#block!;
    this.#block = null;
    const fields = decodeBlock(this.#decoder, Buffer.concat(parts));
    const isRequest = !this.#isClient && id > this.#lastTheirId;
    if (isRequest) {
      assert.equal(id & 1, 1);
      this.#lastTheirId = id;
      this.#add(id);
    }
    const stream = this.#live(id);
    stream.headersReceived.push(fields);
    stream.endedByOther = (flags & END_STREAM) !== 0;
  }

  #known(streamId: number): ModelStream {
    const stream = this.streams.get(streamId);
    assert.ok(stream !== undefined, 'a stream that nobody opened');
    return stream;
  }

  /** A stream on which the other side may send. One that the model has reset it may not know to be gone. */
  #live(streamId: number): ModelStream {
    const stream = this.#known(streamId);
    assert.equal(stream.endedByOther, false, 'after END_STREAM');
    return stream;
  }

  #add(id: number): ModelStream {
    const stream: ModelStream = {
      id,
      sendWindow: this.theirs.initialWindow,
      receiveWindow: this.#own.initialWindow,
      begun: false,
      ended: false,
      endedByOther: false,
      reset: false,
      sent: 0,
      received: 0,
      headersSent: [],
      headersReceived: [],
    };
    this.streams.set(id, stream);
    return stream;
  }

  #mayReset(streamId: number, code: string): void {
    this.resetsAllowed.set(streamId, (this.resetsAllowed.get(streamId) ?? new Set()).add(code));
  }
}

function padded(payload: Uint8Array, padding: number): Buffer {
  return Buffer.concat([Buffer.of(padding), payload, Buffer.alloc(padding)]);
}

/** Fields that repeat, so that they come from tables, and fields that do not. */
export function randomHeaders(random: Random, kind: 'request' | 'response' | 'trailers'): HeaderField[] {
  const fields: HeaderField[] = [];
  if (kind === 'response') fields.push([':status', random.pick(['200', '403', '503'])]);
  if (kind === 'request') {
    if (random.chance(0.9)) fields.push([':method', 'CONNECT'], [':authority', `10.0.0.${random.int(4)}:80`]);
    else fields.push([':method', 'GET'], [':scheme', 'https'], [':path', '/'], [':authority', 'a']);
  }
  for (const name of ['baggage', 'forwarded', 'traceparent', 'cookie', 'x-a', 'x-b']) {
    if (random.chance(0.4)) continue;
    const value = random.chance(0.5) ? random.pick(['', 'one', 'two', 'z'.repeat(200)]) : hex(random);
    fields.push([name, value]);
  }
  return fields;
}

function hex(random: Random): string {
  return Buffer.from(random.octets(random.int(40))).toString('hex');
}

/**
 * HTTP/2 for CONNECT tunnels (RFC 9113), one connection in either role. Bytes in, bytes out: it is given what a transport
 * has read and writes frames to the transport's memory; it knows no sockets and no clock but the one it is given.
 *
 * Hot path (bench/: relay, pods): frames are parsed where they were read, payload is handed on as offset and length.
 */
import { messageOf } from '../errors.ts';
import { type RequestHead, readRequestHead } from './connect-headers.ts';
import { FloodGuard } from './flood-guard.ts';
import {
  CLIENT_PREFACE,
  DEFAULT_HEADER_TABLE_SIZE,
  DEFAULT_WINDOW_SIZE,
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
  headersSize,
  MAX_STREAM_ID,
  MAX_WINDOW_SIZE,
  readUint31,
  readUint32,
  SettingId,
  writeGoAway,
  writeHeaders,
  writePing,
  writeRstStream,
  writeSettings,
  writeSettingsAck,
  writeWindowUpdate,
} from './frames.ts';
import { type HeaderField, HpackDecoder, HpackEncoder, maxEncodedSize } from './hpack.ts';
import {
  connectionError,
  ErrorCode,
  type ErrorCodeName,
  errorCodeName,
  Http2Error,
  streamError,
} from './http-error.ts';
import { applySettings, defaultSettings } from './settings.ts';
import { Http2Stream, type StreamHandler, type StreamReset } from './stream.ts';
import type { WindowBudget } from './window-budget.ts';

/** What carries the connection: a TLS channel, or a stream of another connection. */
export interface Http2Transport {
  /** `receive` gets offsets into it; the first `scratchSize` bytes are for frames that are built here. */
  readonly memory: Uint8Array;
  readonly scratchSize: number;
  /** Takes bytes of `memory`. Returns how many wait to be sent, -1 when the transport is closed. */
  write(offset: number, length: number): number;
  /** The same for a DATA frame; the 9 bytes in front of the payload are free for its header. */
  writeData(streamId: number, flags: number, offset: number, length: number): number;
  /** Sends what is queued; returns what the other side did not take. `drained` is called when that gets less. */
  flush(): number;
  /** Sends what is queued, then closes. */
  close(): void;
}

export interface Http2Options {
  readonly role: 'client' | 'server';
  /** First receive window of a stream, in bytes, and the most it grows to with demand. */
  readonly initialWindow: number;
  readonly maxWindow: number;
  /** Receive window of the connection; credit for it is returned on receipt, so no stream can use it up. */
  readonly connectionWindow: number;
  readonly maxFrameSize: number;
  readonly maxHeaderListSize: number;
  /** Streams a client peer may have open (server role). */
  readonly maxConcurrentStreams: number;
  /** Streams to assume as allowed until the peer's SETTINGS say so (client role). */
  readonly assumedPeerStreams: number;
  readonly budget: WindowBudget;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

export interface Http2Events {
  /** A request arrived (server role). Returns who handles the stream; it may respond at once. */
  request(stream: Http2Stream, head: RequestHead): StreamHandler;
  /** The peer will take no new streams; existing ones go on. */
  goingAway(code: number): void;
  /** A stream ended: there may be room for another. */
  streamClosed(): void;
  /** The connection is over and every stream has been told. `error` is null after an orderly end. */
  closed(error: Http2Error | null): void;
}

/** Header blocks beyond this are not even collected: CONTINUATION floods end here (in octets on the wire). */
const MAX_HEADER_BLOCK = 128 * 1024;

/** Bytes that may wait in the transport before streams stop sending, and below which they go on. */
const HIGH_WATER = 512 * 1024;
const LOW_WATER = 128 * 1024;

/** Bytes that may wait altogether. Only a peer that makes us answer and does not read the answers gets there. */
const MAX_QUEUED = 4 * HIGH_WATER;

/** A stream that uses up a whole window within this time (ms) wants a larger one: covers any sensible round trip. */
const FAST_WINDOW = 200;

/** Opaque data of keep-alive PINGs. */
const PING_PAYLOAD = new Uint8Array([0x63, 0x75, 0x6c, 0x76, 0x65, 0x72, 0x74, 0x0a]);

// Where the bytes of a frame are that did not come in one piece.
type Partial =
  | { readonly kind: 'header'; readonly bytes: Uint8Array; filled: number }
  | { readonly kind: 'payload'; readonly bytes: Uint8Array; filled: number };

export class Http2Connection {
  readonly #transport: Http2Transport;
  readonly #memory: Uint8Array;
  readonly #options: Http2Options;
  readonly #events: Http2Events;
  readonly #streams = new Map<number, Http2Stream>();
  readonly #peer = defaultSettings();
  readonly #decoder: HpackDecoder;
  readonly #encoder: HpackEncoder;
  readonly #guard: FloodGuard;
  readonly #isServer: boolean;
  /** What the peer lets us send on the connection. */
  sendWindow = DEFAULT_WINDOW_SIZE;
  /** The transport has more than it can send: no stream may add to it. */
  congested = false;
  #receiveWindow: number;
  #uncredited = 0;
  #waiting: Http2Stream[] = [];
  #nextStreamId = 1;
  #lastPeerStreamId = 0;
  #prefaceLeft: number;
  #settingsReceived = false;
  #settingsAcknowledged = false;
  #goAwaySent = false;
  #goAwayReceived = false;
  #closed = false;
  #lastActivity: number;
  #pingSentAt = 0;
  // The frame that is being received.
  #partial: Partial | null = null;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  #dataLeft = 0;
  #paddingLeft = 0;
  #inData = false;
  // A header block that CONTINUATION frames go on with.
  #block: Uint8Array[] | null = null;
  #blockLength = 0;
  #blockStreamId = 0;
  #blockEnds = false;
  #blockFrames = 0;

  constructor(transport: Http2Transport, options: Http2Options, events: Http2Events) {
    this.#transport = transport;
    this.#memory = transport.memory;
    this.#options = options;
    this.#events = events;
    this.#isServer = options.role === 'server';
    this.#prefaceLeft = this.#isServer ? CLIENT_PREFACE.length : 0;
    this.#receiveWindow = options.connectionWindow;
    this.#peer.maxConcurrentStreams = options.assumedPeerStreams;
    this.#decoder = new HpackDecoder({
      maxTableSize: DEFAULT_HEADER_TABLE_SIZE,
      maxHeaderListSize: options.maxHeaderListSize,
    });
    this.#encoder = new HpackEncoder({ maxTableSize: DEFAULT_HEADER_TABLE_SIZE });
    this.#lastActivity = options.now();
    this.#guard = new FloodGuard(this.#lastActivity);
    this.#sendPreface();
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** True until GOAWAY was sent or received, or the connection ended. */
  get accepting(): boolean {
    return !this.#closed && !this.#goAwaySent && !this.#goAwayReceived && this.#nextStreamId <= MAX_STREAM_ID;
  }

  /** The peer's SETTINGS have arrived: it speaks HTTP/2. */
  get established(): boolean {
    return this.#settingsReceived;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Streams that may be opened now (client role). */
  get room(): number {
    return this.accepting ? Math.max(0, this.#peer.maxConcurrentStreams - this.#streams.size) : 0;
  }

  /** Opens a stream with a request (client role); null when there is no room. Throws before anything has changed. */
  open(fields: readonly HeaderField[], handler: StreamHandler): Http2Stream | null {
    if (this.room === 0) return null;
    const length = this.#encode(fields);
    const stream = this.#addStream(this.#nextStreamId, handler);
    this.#nextStreamId += 2;
    // The peer's answer and a reset of its own may cross ours.
    this.#guard.earn(2);
    this.#writeBlock(stream, length, false);
    return stream;
  }

  /**
   * Parses what the transport has read. A breach ends the stream or the connection as RFC 9113 says; the only thing that
   * is thrown is what a handler threw, after the connection has ended.
   */
  receive(offset: number, length: number): void {
    if (this.#closed) return;
    this.#lastActivity = this.#options.now();
    this.#pingSentAt = 0;
    try {
      this.#parse(offset, offset + length);
    } catch (error) {
      if (error instanceof Http2Error) {
        this.#fail(error);
        return;
      }
      this.#fail(connectionError('INTERNAL_ERROR', messageOf(error)));
      throw error;
    }
  }

  /** The transport is gone: every stream is told. `detail` goes to the log. */
  lost(detail: string): void {
    if (this.#closed) return;
    this.#end(null, { code: ErrorCode.CONNECT_ERROR, unprocessed: false, detail });
  }

  /** GOAWAY NO_ERROR: takes no new streams, closes when the last one has ended. */
  drain(): void {
    if (this.#closed || this.#goAwaySent) return;
    this.#goAway(ErrorCode.NO_ERROR, '');
    this.#closeWhenIdle();
  }

  /** Ends everything now, with a GOAWAY of that code. */
  abort(code: ErrorCode, detail: string): void {
    if (this.#closed) return;
    this.#goAway(code, '');
    const error = code === ErrorCode.NO_ERROR ? null : connectionError(errorCodeName(code) as ErrorCodeName, detail);
    this.#end(error, { code: ErrorCode.CANCEL, unprocessed: false, detail });
    this.#transport.close();
  }

  /**
   * Keep-alive (spec §6.3): sends a PING when nothing was received for `idle` ms, gives up when nothing came for
   * `timeout` ms after it. Any frame is an answer, so no PING is sent while bytes flow. Called every second or so.
   */
  keepAlive(idle: number, timeout: number): void {
    if (this.#closed) return;
    const now = this.#options.now();
    if (this.#pingSentAt > 0) {
      if (now - this.#pingSentAt >= timeout)
        this.abort(ErrorCode.NO_ERROR, 'the peer did not answer a keep-alive PING');
    } else if (now - this.#lastActivity >= idle) {
      this.#pingSentAt = now;
      this.#write(writePing(this.#memory, 0, false, PING_PAYLOAD, 0));
    }
  }

  // Sending. Called by Http2Stream.

  sendHeaders(stream: Http2Stream, fields: readonly HeaderField[], end: boolean): void {
    if (!this.#streams.has(stream.id) || stream.localEnded) return;
    this.#guard.earn(1);
    this.#writeBlock(stream, this.#encode(fields), end);
    if (end) this.#localEnd(stream);
  }

  sendData(stream: Http2Stream, offset: number, length: number): void {
    stream.sendWindow -= length;
    this.sendWindow -= length;
    const most = this.#peer.maxFrameSize;
    let queued = 0;
    let at = offset;
    let left = length;
    while (left > 0) {
      const part = Math.min(left, most);
      queued = this.#transport.writeData(stream.id, 0, at, part);
      at += part;
      left -= part;
    }
    if (queued > HIGH_WATER && !this.congested) this.congested = this.#transport.flush() > LOW_WATER;
  }

  sendEnd(stream: Http2Stream): void {
    if (!this.#streams.has(stream.id) || stream.localEnded) return;
    this.#transport.writeData(stream.id, FrameFlag.END_STREAM, FRAME_HEADER_SIZE, 0);
    this.#localEnd(stream);
  }

  resetStream(stream: Http2Stream, code: number): void {
    if (this.#closed || !this.#streams.has(stream.id)) return;
    this.#write(writeRstStream(this.#memory, 0, stream.id, code));
    this.#forget(stream);
  }

  waitForWindow(stream: Http2Stream): void {
    if (stream.waiting || this.#closed) return;
    stream.waiting = true;
    this.#waiting.push(stream);
  }

  /** Returns credit to the peer; the window grows when the stream is fast and its reader keeps up. */
  credit(stream: Http2Stream, bytes: number): void {
    if (this.#closed || stream.remoteEnded || !this.#streams.has(stream.id)) return;
    stream.uncredited -= bytes;
    stream.credited += bytes;
    let increment = bytes;
    if (stream.credited >= stream.windowSize) {
      if (this.#lastActivity - stream.windowStart < FAST_WINDOW) increment += this.#grow(stream);
      stream.credited = 0;
      stream.windowStart = this.#lastActivity;
    }
    stream.receiveWindow += increment;
    this.#write(writeWindowUpdate(this.#memory, 0, stream.id, increment));
  }

  /** Leaves a header block where a frame's payload is built. Returns its length. */
  #encode(fields: readonly HeaderField[]): number {
    if (headersSize(maxEncodedSize(fields), this.#peer.maxFrameSize) > this.#transport.scratchSize) {
      throw connectionError('INTERNAL_ERROR', 'header list too large to send');
    }
    return this.#encoder.encode(fields, this.#memory, FRAME_HEADER_SIZE);
  }

  #writeBlock(stream: Http2Stream, length: number, end: boolean): void {
    const memory = this.#memory;
    this.#write(writeHeaders(memory, 0, stream.id, end, memory, FRAME_HEADER_SIZE, length, this.#peer.maxFrameSize));
  }

  #grow(stream: Http2Stream): number {
    const { maxWindow, budget } = this.#options;
    const growth = Math.min(stream.windowSize, maxWindow - stream.windowSize);
    if (growth <= 0 || !budget.take(growth)) return 0;
    stream.windowSize += growth;
    return growth;
  }

  /** The transport has sent some of what waited; `queued` bytes are left. */
  drained(queued: number): void {
    if (!this.congested || queued > LOW_WATER || this.#closed) return;
    this.congested = false;
    this.#wakeWaiting();
  }

  // Receiving.

  #parse(start: number, end: number): void {
    let at = start;
    if (this.#prefaceLeft > 0) at = this.#preface(at, end);
    const memory = this.#memory;
    while (at < end && !this.#closed) {
      if (this.#inData) {
        at = this.#data(at, end);
        continue;
      }
      if (this.#partial !== null) {
        at = this.#fillPartial(this.#partial, at, end);
        continue;
      }
      if (end - at < FRAME_HEADER_SIZE) {
        const bytes = new Uint8Array(FRAME_HEADER_SIZE);
        bytes.set(memory.subarray(at, end));
        this.#partial = { kind: 'header', bytes, filled: end - at };
        return;
      }
      const length = this.#frameHeader(memory, at);
      at += FRAME_HEADER_SIZE;
      if (this.#type === FrameType.DATA) {
        at = this.#startData(length, at, end);
      } else if (end - at >= length) {
        this.#frame(memory, at, length);
        at += length;
      } else {
        const bytes = new Uint8Array(length);
        bytes.set(memory.subarray(at, end));
        this.#partial = { kind: 'payload', bytes, filled: end - at };
        return;
      }
    }
  }

  #preface(start: number, end: number): number {
    let at = start;
    while (this.#prefaceLeft > 0 && at < end) {
      if (this.#memory[at] !== CLIENT_PREFACE[CLIENT_PREFACE.length - this.#prefaceLeft]) {
        throw connectionError('PROTOCOL_ERROR', 'the peer does not speak HTTP/2 (no connection preface)');
      }
      at++;
      this.#prefaceLeft--;
    }
    return at;
  }

  /** Completes a frame header or a payload that came in pieces. Returns where parsing goes on. */
  #fillPartial(partial: Partial, at: number, end: number): number {
    const part = Math.min(end - at, partial.bytes.length - partial.filled);
    partial.bytes.set(this.#memory.subarray(at, at + part), partial.filled);
    partial.filled += part;
    const next = at + part;
    if (partial.filled < partial.bytes.length) return next;
    this.#partial = null;
    if (partial.kind === 'payload') {
      this.#frame(partial.bytes, 0, partial.bytes.length);
      return next;
    }
    const length = this.#frameHeader(partial.bytes, 0);
    if (this.#type === FrameType.DATA) return this.#startData(length, next, end);
    if (length === 0) this.#frame(partial.bytes, FRAME_HEADER_SIZE, 0);
    else this.#partial = { kind: 'payload', bytes: new Uint8Array(length), filled: 0 };
    return next;
  }

  /** Reads a frame header and checks what can be checked before the payload. Returns the payload's length. */
  #frameHeader(bytes: Uint8Array, at: number): number {
    const length = frameLength(bytes, at);
    this.#type = frameType(bytes, at);
    this.#flags = frameFlags(bytes, at);
    this.#streamId = frameStreamId(bytes, at);
    if (length > this.#options.maxFrameSize) throw connectionError('FRAME_SIZE_ERROR', `frame of ${length} octets`);
    // RFC 9113 §3.4: SETTINGS come first.
    if (!this.#settingsReceived && (this.#type !== FrameType.SETTINGS || (this.#flags & FrameFlag.ACK) !== 0)) {
      throw connectionError('PROTOCOL_ERROR', 'the first frame is not SETTINGS');
    }
    if (this.#block !== null && (this.#type !== FrameType.CONTINUATION || this.#streamId !== this.#blockStreamId)) {
      throw connectionError('PROTOCOL_ERROR', 'a header block is interrupted by another frame');
    }
    // Everything but DATA is collected whole, so its size is bounded here; header blocks have their own bound.
    if (
      this.#type !== FrameType.DATA &&
      this.#type !== FrameType.HEADERS &&
      this.#type !== FrameType.CONTINUATION &&
      length > 65_536
    ) {
      throw connectionError('ENHANCE_YOUR_CALM', `control frame of ${length} octets`);
    }
    if ((this.#type === FrameType.HEADERS || this.#type === FrameType.CONTINUATION) && length > MAX_HEADER_BLOCK) {
      throw connectionError('ENHANCE_YOUR_CALM', `header block fragment of ${length} octets`);
    }
    return length;
  }

  #startData(length: number, at: number, end: number): number {
    if (this.#streamId === 0) throw connectionError('PROTOCOL_ERROR', 'DATA on stream 0');
    if (this.#isIdle(this.#streamId)) throw connectionError('PROTOCOL_ERROR', 'DATA on an idle stream');
    if (length > this.#receiveWindow)
      throw connectionError('FLOW_CONTROL_ERROR', 'more DATA than the connection window');
    this.#receiveWindow -= length;
    this.#uncredited += length;
    // Credit of the connection is returned on receipt: what a stream holds back never stops its siblings.
    if (this.#uncredited >= this.#options.connectionWindow >> 2) {
      this.#write(writeWindowUpdate(this.#memory, 0, 0, this.#uncredited));
      this.#receiveWindow += this.#uncredited;
      this.#uncredited = 0;
    }
    this.#dataLeft = length;
    this.#paddingLeft = 0;
    this.#inData = true;
    const stream = this.#streams.get(this.#streamId);
    if (stream !== undefined) {
      if (stream.remoteEnded) {
        this.#streamFault(stream, streamError(stream.id, 'STREAM_CLOSED', 'DATA after END_STREAM'));
      } else if (length > stream.receiveWindow) {
        this.#streamFault(stream, streamError(stream.id, 'FLOW_CONTROL_ERROR', 'more DATA than the stream window'));
      } else {
        stream.receiveWindow -= length;
      }
    }
    if (length === 0 && (this.#flags & FrameFlag.END_STREAM) === 0)
      this.#guard.count(this.#options.now(), 'empty DATA');
    if ((this.#flags & FrameFlag.PADDED) !== 0) {
      if (length === 0) throw connectionError('FRAME_SIZE_ERROR', 'padded DATA without a pad length');
      this.#paddingLeft = -1; // not read yet
    }
    // An empty frame has no bytes to come back for.
    return length === 0 ? this.#data(at, end) : at;
  }

  /** Hands on as much of the current DATA frame as is there. */
  #data(start: number, end: number): number {
    let at = start;
    const stream = this.#streams.get(this.#streamId);
    if (this.#paddingLeft < 0) {
      this.#paddingLeft = this.#memory[at]!;
      at++;
      this.#dataLeft--;
      if (this.#paddingLeft > this.#dataLeft) throw connectionError('PROTOCOL_ERROR', 'more padding than DATA');
      if (this.#paddingLeft === this.#dataLeft) this.#guard.count(this.#options.now(), 'DATA of padding only');
      if (stream !== undefined) this.#consumedPadding(stream, 1 + this.#paddingLeft);
    }
    const payload = Math.min(this.#dataLeft - this.#paddingLeft, end - at);
    if (payload > 0) {
      if (stream !== undefined && !stream.remoteEnded) {
        stream.uncredited += payload;
        stream.handler.streamData(at, payload);
      }
      at += payload;
      this.#dataLeft -= payload;
    }
    if (this.#dataLeft === this.#paddingLeft) {
      const padding = Math.min(this.#paddingLeft, end - at);
      at += padding;
      this.#dataLeft -= padding;
      this.#paddingLeft -= padding;
      if (this.#dataLeft === 0) {
        this.#inData = false;
        if ((this.#flags & FrameFlag.END_STREAM) !== 0) {
          const ending = this.#streams.get(this.#streamId);
          if (ending !== undefined) this.#remoteEnd(ending);
        }
      }
    }
    return at;
  }

  // Padding counts against the window but reaches nobody: its credit is returned without anybody taking it.
  #consumedPadding(stream: Http2Stream, bytes: number): void {
    stream.padding += bytes;
    if (stream.padding < stream.creditThreshold || stream.remoteEnded) return;
    stream.receiveWindow += stream.padding;
    this.#write(writeWindowUpdate(this.#memory, 0, stream.id, stream.padding));
    stream.padding = 0;
  }

  #frame(bytes: Uint8Array, at: number, length: number): void {
    switch (this.#type) {
      case FrameType.HEADERS:
        this.#headers(bytes, at, length);
        break;
      case FrameType.CONTINUATION:
        this.#continuation(bytes, at, length);
        break;
      case FrameType.SETTINGS:
        this.#settings(bytes, at, length);
        break;
      case FrameType.WINDOW_UPDATE:
        this.#windowUpdate(bytes, at, length);
        break;
      case FrameType.RST_STREAM:
        this.#rstStream(bytes, at, length);
        break;
      case FrameType.PING:
        this.#ping(bytes, at, length);
        break;
      case FrameType.GOAWAY:
        this.#goAwayFrame(bytes, at, length);
        break;
      case FrameType.PUSH_PROMISE:
        throw connectionError('PROTOCOL_ERROR', 'PUSH_PROMISE although push is not enabled');
      case FrameType.PRIORITY:
        if (this.#streamId === 0) throw connectionError('PROTOCOL_ERROR', 'PRIORITY on stream 0');
        if (length !== 5) throw connectionError('FRAME_SIZE_ERROR', `PRIORITY of ${length} octets`);
        this.#guard.count(this.#options.now(), 'PRIORITY');
        break;
      default:
        // RFC 9113 §4.1: frames of unknown types are discarded.
        this.#guard.count(this.#options.now(), 'unknown frame');
    }
  }

  #headers(bytes: Uint8Array, start: number, length: number): void {
    if (this.#streamId === 0) throw connectionError('PROTOCOL_ERROR', 'HEADERS on stream 0');
    let at = start;
    let end = start + length;
    if ((this.#flags & FrameFlag.PADDED) !== 0) {
      if (length < 1) throw connectionError('FRAME_SIZE_ERROR', 'padded HEADERS without a pad length');
      end -= bytes[at]!;
      at++;
    }
    if ((this.#flags & FrameFlag.PRIORITY) !== 0) at += 5;
    if (at > end) throw connectionError('PROTOCOL_ERROR', 'HEADERS shorter than padding and priority');
    const ends = (this.#flags & FrameFlag.END_STREAM) !== 0;
    if ((this.#flags & FrameFlag.END_HEADERS) !== 0) {
      this.#headerBlock(this.#streamId, bytes, at, end - at, ends);
      return;
    }
    this.#block = [bytes.slice(at, end)];
    this.#blockLength = end - at;
    this.#blockStreamId = this.#streamId;
    this.#blockEnds = ends;
    this.#blockFrames = 1;
  }

  #continuation(bytes: Uint8Array, at: number, length: number): void {
    if (this.#block === null) throw connectionError('PROTOCOL_ERROR', 'CONTINUATION without HEADERS');
    this.#block.push(bytes.slice(at, at + length));
    this.#blockLength += length;
    this.#blockFrames++;
    if (this.#blockLength > MAX_HEADER_BLOCK || this.#blockFrames > 64) {
      throw connectionError(
        'ENHANCE_YOUR_CALM',
        `header block of ${this.#blockFrames} frames and ${this.#blockLength} octets`,
      );
    }
    if ((this.#flags & FrameFlag.END_HEADERS) === 0) return;
    const block = Buffer.concat(this.#block);
    this.#block = null;
    this.#headerBlock(this.#blockStreamId, block, 0, block.length, this.#blockEnds);
  }

  #headerBlock(streamId: number, bytes: Uint8Array, at: number, length: number, ends: boolean): void {
    // Decoded in any case: the dynamic table must stay in step.
    const fields = this.#decoder.decode(bytes, at, length);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      if (this.#isServer && streamId > this.#lastPeerStreamId) this.#newStream(streamId, fields, ends);
      else if (this.#isIdle(streamId)) throw connectionError('PROTOCOL_ERROR', 'HEADERS on an idle stream');
      else this.#guard.count(this.#options.now(), 'HEADERS on a closed stream');
      return;
    }
    if (stream.remoteEnded) {
      this.#streamFault(stream, streamError(streamId, 'STREAM_CLOSED', 'HEADERS after END_STREAM'));
      return;
    }
    if (fields === 'list-too-large') {
      this.#streamFault(stream, streamError(streamId, 'ENHANCE_YOUR_CALM', 'header list too large'));
      return;
    }
    const trailers = this.#isServer || stream.headersReceived;
    // RFC 9113 §8.1: trailers end the stream.
    if (trailers && !ends) {
      this.#streamFault(stream, streamError(streamId, 'PROTOCOL_ERROR', 'trailers without END_STREAM'));
      return;
    }
    if (!trailers && !isInterim(fields)) stream.headersReceived = true;
    stream.handler.streamHeaders(fields, trailers);
    if (ends && this.#streams.get(streamId) === stream) this.#remoteEnd(stream);
  }

  #newStream(streamId: number, fields: HeaderField[] | 'list-too-large', ends: boolean): void {
    if ((streamId & 1) === 0) throw connectionError('PROTOCOL_ERROR', 'a client stream has an even id');
    this.#lastPeerStreamId = streamId;
    // After GOAWAY, and beyond the limit: not processed, so the peer may try elsewhere (RFC 9113 §5.1.2, §8.7).
    if (this.#goAwaySent || this.#streams.size >= this.#options.maxConcurrentStreams) {
      this.#guard.count(this.#options.now(), 'refused stream');
      this.#write(writeRstStream(this.#memory, 0, streamId, ErrorCode.REFUSED_STREAM));
      return;
    }
    if (fields === 'list-too-large') {
      this.#guard.count(this.#options.now(), 'header list too large');
      this.#write(writeRstStream(this.#memory, 0, streamId, ErrorCode.ENHANCE_YOUR_CALM));
      return;
    }
    const head = readRequestHead(fields);
    if (head.kind === 'malformed') {
      // RFC 9113 §8.1.1
      this.#guard.count(this.#options.now(), 'malformed request');
      this.#write(writeRstStream(this.#memory, 0, streamId, ErrorCode.PROTOCOL_ERROR));
      return;
    }
    const stream = this.#addStream(streamId, NO_HANDLER);
    stream.handler = this.#events.request(stream, head);
    if (ends && this.#streams.get(streamId) === stream) this.#remoteEnd(stream);
  }

  #addStream(id: number, handler: StreamHandler): Http2Stream {
    const { initialWindow } = this.#options;
    const stream = new Http2Stream(this, id, handler, this.#peer.initialWindowSize, initialWindow);
    stream.receiveWindow += this.#assumedWindow();
    this.#streams.set(id, stream);
    return stream;
  }

  /** What a peer that has not seen our SETTINGS takes for granted beyond them (RFC 9113 §6.9.2). */
  #assumedWindow(): number {
    return this.#settingsAcknowledged ? 0 : Math.max(0, DEFAULT_WINDOW_SIZE - this.#options.initialWindow);
  }

  #settings(bytes: Uint8Array, at: number, length: number): void {
    if (this.#streamId !== 0) throw connectionError('PROTOCOL_ERROR', 'SETTINGS on a stream');
    if ((this.#flags & FrameFlag.ACK) !== 0) {
      if (length !== 0) throw connectionError('FRAME_SIZE_ERROR', 'SETTINGS acknowledgement with a payload');
      this.#guard.count(this.#options.now(), 'SETTINGS acknowledgement');
      const excess = this.#assumedWindow();
      this.#settingsAcknowledged = true;
      if (excess > 0) for (const stream of this.#streams.values()) stream.receiveWindow -= excess;
      return;
    }
    if (length % 6 !== 0) throw connectionError('FRAME_SIZE_ERROR', `SETTINGS of ${length} octets`);
    if (this.#settingsReceived) this.#guard.count(this.#options.now(), 'SETTINGS');
    else this.#peer.maxConcurrentStreams = 0xffffffff;
    this.#settingsReceived = true;
    const windowBefore = this.#peer.initialWindowSize;
    applySettings(this.#peer, bytes, at, length);
    this.#encoder.setMaxTableSize(this.#peer.headerTableSize);
    this.#write(writeSettingsAck(this.#memory, 0));
    // RFC 9113 §6.9.2: the change applies to every open stream.
    const change = this.#peer.initialWindowSize - windowBefore;
    if (change === 0) return;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > MAX_WINDOW_SIZE)
        throw connectionError('FLOW_CONTROL_ERROR', 'a stream window exceeds 2^31-1');
    }
    if (change > 0) this.#wakeWaiting();
  }

  #windowUpdate(bytes: Uint8Array, at: number, length: number): void {
    if (length !== 4) throw connectionError('FRAME_SIZE_ERROR', `WINDOW_UPDATE of ${length} octets`);
    const increment = readUint31(bytes, at);
    if (this.#streamId === 0) {
      if (increment === 0) throw connectionError('PROTOCOL_ERROR', 'WINDOW_UPDATE of 0');
      this.sendWindow += increment;
      if (this.sendWindow > MAX_WINDOW_SIZE)
        throw connectionError('FLOW_CONTROL_ERROR', 'the connection window exceeds 2^31-1');
      this.#wakeWaiting();
      return;
    }
    const stream = this.#streams.get(this.#streamId);
    if (stream === undefined) {
      if (this.#isIdle(this.#streamId)) throw connectionError('PROTOCOL_ERROR', 'WINDOW_UPDATE on an idle stream');
      return;
    }
    if (increment === 0) {
      this.#streamFault(stream, streamError(stream.id, 'PROTOCOL_ERROR', 'WINDOW_UPDATE of 0'));
      return;
    }
    stream.sendWindow += increment;
    if (stream.sendWindow > MAX_WINDOW_SIZE) {
      this.#streamFault(stream, streamError(stream.id, 'FLOW_CONTROL_ERROR', 'the stream window exceeds 2^31-1'));
      return;
    }
    if (stream.waiting && stream.sendable() > 0) {
      this.#stopWaiting(stream);
      stream.handler.streamWritable();
    }
  }

  /** Every waiting stream that can send gets its turn; those that could not stay in front of those that had one. */
  #wakeWaiting(): void {
    if (this.#waiting.length === 0 || this.congested) return;
    const waiting = this.#waiting;
    const passedOver: Http2Stream[] = [];
    this.#waiting = [];
    for (const stream of waiting) {
      if (this.#streams.get(stream.id) !== stream) continue;
      if (stream.sendable() === 0) {
        passedOver.push(stream);
        continue;
      }
      stream.waiting = false;
      stream.handler.streamWritable();
    }
    if (passedOver.length > 0) this.#waiting = passedOver.concat(this.#waiting);
  }

  #stopWaiting(stream: Http2Stream): void {
    if (!stream.waiting) return;
    stream.waiting = false;
    const at = this.#waiting.indexOf(stream);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  #rstStream(bytes: Uint8Array, at: number, length: number): void {
    if (this.#streamId === 0) throw connectionError('PROTOCOL_ERROR', 'RST_STREAM on stream 0');
    if (length !== 4) throw connectionError('FRAME_SIZE_ERROR', `RST_STREAM of ${length} octets`);
    if (this.#isIdle(this.#streamId)) throw connectionError('PROTOCOL_ERROR', 'RST_STREAM on an idle stream');
    this.#guard.count(this.#options.now(), 'RST_STREAM');
    const stream = this.#streams.get(this.#streamId);
    if (stream === undefined) return;
    const code = readUint32(bytes, at);
    this.#forget(stream);
    stream.handler.streamReset({
      code,
      unprocessed: code === ErrorCode.REFUSED_STREAM,
      detail: `stream reset by the peer: ${errorCodeName(code)}`,
    });
  }

  #ping(bytes: Uint8Array, at: number, length: number): void {
    if (this.#streamId !== 0) throw connectionError('PROTOCOL_ERROR', 'PING on a stream');
    if (length !== 8) throw connectionError('FRAME_SIZE_ERROR', `PING of ${length} octets`);
    this.#guard.count(this.#options.now(), 'PING');
    if ((this.#flags & FrameFlag.ACK) !== 0) return;
    this.#write(writePing(this.#memory, 0, true, bytes, at));
  }

  #goAwayFrame(bytes: Uint8Array, at: number, length: number): void {
    if (this.#streamId !== 0) throw connectionError('PROTOCOL_ERROR', 'GOAWAY on a stream');
    if (length < 8) throw connectionError('FRAME_SIZE_ERROR', `GOAWAY of ${length} octets`);
    const last = readUint31(bytes, at);
    const code = readUint32(bytes, at + 4);
    if (this.#goAwayReceived) this.#guard.count(this.#options.now(), 'GOAWAY');
    this.#goAwayReceived = true;
    this.#events.goingAway(code);
    if (!this.#isServer) {
      const detail = `the peer went away (${errorCodeName(code)}) before it took the stream`;
      for (const stream of [...this.#streams.values()]) {
        if (stream.id <= last) continue;
        this.#forget(stream);
        stream.handler.streamReset({ code: ErrorCode.REFUSED_STREAM, unprocessed: true, detail });
      }
    }
    this.#closeWhenIdle();
  }

  // Ends.

  #localEnd(stream: Http2Stream): void {
    stream.localEnded = true;
    if (stream.remoteEnded) this.#forget(stream);
  }

  #remoteEnd(stream: Http2Stream): void {
    stream.remoteEnded = true;
    if (stream.localEnded) this.#forget(stream);
    stream.handler.streamEnded();
  }

  #forget(stream: Http2Stream): void {
    if (!this.#streams.delete(stream.id)) return;
    this.#options.budget.giveBack(stream.windowSize - this.#options.initialWindow);
    stream.windowSize = this.#options.initialWindow;
    this.#stopWaiting(stream);
    this.#events.streamClosed();
    this.#closeWhenIdle();
  }

  #closeWhenIdle(): void {
    if (this.#closed || this.#streams.size > 0 || (!this.#goAwaySent && !this.#goAwayReceived)) return;
    if (!this.#goAwaySent) this.#goAway(ErrorCode.NO_ERROR, '');
    this.#end(null, ORDERLY);
    this.#transport.close();
  }

  /** Ends one stream because of what the peer did on it. */
  #streamFault(stream: Http2Stream, fault: Http2Error): void {
    this.#guard.count(this.#options.now(), 'stream error');
    this.resetStream(stream, fault.http2Code);
    stream.handler.streamReset({ code: fault.http2Code, unprocessed: false, detail: fault.message });
  }

  #fail(error: Http2Error): void {
    if (this.#closed) return;
    this.#goAway(error.http2Code, error.message);
    this.#end(error, { code: error.http2Code, unprocessed: false, detail: error.message });
    this.#transport.close();
  }

  #end(error: Http2Error | null, reset: StreamReset): void {
    this.#closed = true;
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#waiting = [];
    this.#partial = null;
    this.#block = null;
    for (const stream of streams) {
      this.#options.budget.giveBack(stream.windowSize - this.#options.initialWindow);
      stream.handler.streamReset(reset);
    }
    this.#events.closed(error);
  }

  #goAway(code: number, debug: string): void {
    if (this.#goAwaySent && code === ErrorCode.NO_ERROR) return;
    this.#goAwaySent = true;
    const text = debug.replace(/[^ -~]/g, '?').slice(0, 200);
    this.#transport.write(0, writeGoAway(this.#memory, 0, this.#lastPeerStreamId, code, text));
  }

  #isIdle(streamId: number): boolean {
    const own = (streamId & 1) === (this.#isServer ? 0 : 1);
    return own ? streamId >= this.#nextStreamId || this.#isServer : streamId > this.#lastPeerStreamId;
  }

  #sendPreface(): void {
    const { initialWindow, maxFrameSize, maxHeaderListSize, maxConcurrentStreams, connectionWindow } = this.#options;
    const memory = this.#memory;
    let length = 0;
    if (!this.#isServer) {
      memory.set(CLIENT_PREFACE, 0);
      length = CLIENT_PREFACE.length;
    }
    length += writeSettings(memory, length, [
      this.#isServer ? [SettingId.MAX_CONCURRENT_STREAMS, maxConcurrentStreams] : [SettingId.ENABLE_PUSH, 0],
      [SettingId.INITIAL_WINDOW_SIZE, initialWindow],
      [SettingId.MAX_FRAME_SIZE, maxFrameSize],
      [SettingId.MAX_HEADER_LIST_SIZE, maxHeaderListSize],
    ]);
    if (connectionWindow > DEFAULT_WINDOW_SIZE) {
      length += writeWindowUpdate(memory, length, 0, connectionWindow - DEFAULT_WINDOW_SIZE);
    }
    this.#write(length);
  }

  /** Sends the frame that was built at the start of the memory. DATA waits for a congested transport, this does not. */
  #write(length: number): void {
    if (this.#transport.write(0, length) <= MAX_QUEUED || this.#closed) return;
    const error = connectionError('ENHANCE_YOUR_CALM', 'the peer does not read the answers to what it sends');
    this.#end(error, { code: error.http2Code, unprocessed: false, detail: error.message });
    this.#transport.close();
  }
}

function isInterim(fields: readonly HeaderField[]): boolean {
  const first = fields[0];
  return first !== undefined && first[0] === ':status' && first[1].startsWith('1');
}

const ORDERLY: StreamReset = { code: ErrorCode.NO_ERROR, unprocessed: false, detail: 'closed' };

// Stands in while `request` is being answered.
const NO_HANDLER: StreamHandler = {
  streamHeaders() {},
  streamData() {},
  streamEnded() {},
  streamReset() {},
  streamWritable() {},
};

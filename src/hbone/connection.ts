/**
 * HTTP/2 for CONNECT tunnels (RFC 9113), one connection in either role. Bytes in, bytes out: it is given what a transport
 * has read and writes frames to the transport's memory; it knows no sockets and no clock but the one it is given.
 *
 * Its parts: FrameReader (bytes into frames) → FrameHandler (what they do) → StreamTable, with SendScheduler and
 * ReceiveWindows for the two directions of flow control → FrameSender.
 */
import { messageOf } from '../errors.ts';
import { FloodGuard } from './flood-guard.ts';
import { FrameHandler } from './frame-handler.ts';
import { FrameReader } from './frame-reader.ts';
import { FrameSender } from './frame-sender.ts';
import { DEFAULT_WINDOW_SIZE, MAX_STREAM_ID, SettingId } from './frames.ts';
import type { HeaderField } from './hpack.ts';
import {
  type Breach,
  connectionError,
  ErrorCode,
  type ErrorCodeName,
  errorCodeName,
  Http2Error,
} from './http-error.ts';
import type { Http2Events, Http2Options, Http2Transport } from './http2.ts';
import { PingPurpose } from './ping.ts';
import { ReceiveWindows } from './receive-windows.ts';
import { SendScheduler } from './send-scheduler.ts';
import { defaultSettings } from './settings.ts';
import type { Http2Stream, StreamHandler, StreamReset } from './stream.ts';
import { StreamTable } from './stream-table.ts';

export type { Http2Events, Http2Options, Http2Transport } from './http2.ts';

/**
 * How far this side is with going away (RFC 9113 §6.8). `announced`: the client has been told to open no more streams,
 * and may not know yet; those that it opens are served. `final`: it has been told the last stream that is.
 */
type GoingAway =
  | { readonly kind: 'no' }
  | { readonly kind: 'announced'; readonly at: number }
  | { readonly kind: 'final' };

/** The answer to the PING behind the announcement is waited for this long, in ms. */
const ANNOUNCEMENT_PATIENCE = 5_000;

/** A server whose streams that stall leave it nothing to send for so many seconds has its client open another connection. */
const STARVED_PATIENCE = 10;

export class Http2Connection {
  readonly #options: Http2Options;
  readonly #events: Http2Events;
  readonly #peer = defaultSettings();
  readonly #guard: FloodGuard;
  readonly #sender: FrameSender;
  readonly #scheduler: SendScheduler;
  readonly #windows: ReceiveWindows;
  readonly #streams: StreamTable;
  readonly #handler: FrameHandler;
  readonly #reader: FrameReader;
  #goingAway: GoingAway = NOT_GOING_AWAY;
  #goAwayReceived = false;
  /** The last of our streams that the peer may act on, by its GOAWAY. */
  #lastProcessed = MAX_STREAM_ID;
  #closed = false;
  #lastActivity: number;
  #pingSentAt = 0;

  constructor(transport: Http2Transport, options: Http2Options, events: Http2Events) {
    this.#options = options;
    this.#events = events;
    const peer = this.#peer;
    peer.maxConcurrentStreams = options.assumedPeerStreams;
    this.#lastActivity = options.now();
    this.#guard = new FloodGuard(this.#lastActivity);
    this.#sender = new FrameSender(transport, peer, () => this.#answersUnread());
    this.#scheduler = new SendScheduler(this.#sender, this.#lastActivity);
    this.#windows = new ReceiveWindows(options, this.#sender, () => this.#streams.all());
    this.#streams = new StreamTable(options, peer, this.#sender, this.#scheduler, this.#windows, this.#guard, () =>
      this.#streamGone(),
    );
    const connection = this;
    this.#handler = new FrameHandler(
      options,
      events,
      {
        get refusesStreams() {
          return connection.#goingAway.kind === 'final';
        },
        goAway: (lastStreamId, code) => this.#peerGoesAway(lastStreamId, code),
        pingAnswered: (purpose) => this.#pingAnswered(purpose),
      },
      this.#streams,
      peer,
      this.#sender,
      this.#guard,
    );
    const isServer = options.role === 'server';
    this.#reader = new FrameReader(transport.memory, options.maxFrameSize, isServer, this.#handler);
    this.#sendPreface(isServer);
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** True until GOAWAY was sent or received, or the connection ended. */
  get accepting(): boolean {
    const isLeaving = this.#goingAway.kind !== 'no' || this.#goAwayReceived;
    return !this.#closed && !isLeaving && this.#streams.nextId <= MAX_STREAM_ID;
  }

  /** The peer's SETTINGS have arrived: it speaks HTTP/2. */
  get established(): boolean {
    return this.#handler.established;
  }

  /** When the peer was last heard of, by the clock of the options. */
  get heardAt(): number {
    return this.#lastActivity;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** The peer's SETTINGS_MAX_CONCURRENT_STREAMS, or what is assumed until its SETTINGS come (client role). */
  get maxStreams(): number {
    return this.#peer.maxConcurrentStreams;
  }

  /** Streams that may be opened now (client role): none while those that stall leave nothing to send. */
  get room(): number {
    return this.accepting && this.#scheduler.starvedFor === 0
      ? Math.max(0, this.#peer.maxConcurrentStreams - this.#streams.size)
      : 0;
  }

  /** What the peer lets us send on the connection, in bytes. */
  get sendWindow(): number {
    return this.#scheduler.window;
  }

  /** The transport has more than it can send: no stream may add to it. */
  get congested(): boolean {
    return this.#scheduler.congested;
  }

  /** Opens a stream with a request (client role); null when there is no room. Throws before anything has changed. */
  open(fields: readonly HeaderField[], handler: StreamHandler): Http2Stream | null {
    if (this.room === 0) return null;
    const length = this.#sender.encode(fields);
    const id = this.#streams.nextId;
    this.#streams.nextId += 2;
    // The peer's answer and a reset of its own may cross ours.
    this.#guard.earn(2);
    this.#sender.headers(id, length, false);
    // Sending can be what shows that the peer does not read.
    const stream = this.#closed ? null : this.#streams.add(id);
    if (stream !== null) stream.handler = handler;
    return stream;
  }

  /**
   * Parses what the transport has read. A breach ends the stream or the connection as RFC 9113 says; the only thing that
   * is thrown is what a handler threw, after the connection has ended.
   */
  receive(offset: number, length: number): void {
    if (this.#closed) return;
    this.#lastActivity = this.#options.now();
    this.#windows.now = this.#lastActivity;
    this.#pingSentAt = 0;
    try {
      this.#reader.read(offset, offset + length);
    } catch (error) {
      if (error instanceof Http2Error) {
        this.#fail(error);
        return;
      }
      this.#fail(connectionError('INTERNAL_ERROR', messageOf(error), 'internal'));
      throw error;
    }
  }

  /** The transport has sent some of what waited; `queued` bytes are left. */
  drained(queued: number): void {
    if (!this.#closed) this.#scheduler.drained(queued);
  }

  /** The transport is gone: every stream is told. `detail` goes to the log. */
  lost(detail: string): void {
    if (this.#closed) return;
    this.#end(null, { code: ErrorCode.CONNECT_ERROR, unprocessed: false, detail });
  }

  /**
   * Takes no new streams, closes when the last one has ended. A server says so in two steps (RFC 9113 §6.8): requests
   * that cross the announcement are served, and only those behind the next round trip are refused.
   */
  drain(): void {
    if (this.#closed || this.#goingAway.kind !== 'no') return;
    if (this.#options.role === 'client' || this.#goAwayReceived) {
      this.#drainFinally();
      return;
    }
    this.#goingAway = { kind: 'announced', at: this.#options.now() };
    this.#sender.goAway(MAX_STREAM_ID, ErrorCode.NO_ERROR, '');
    this.#sender.ping(PingPurpose.LAST_STREAM);
  }

  /** Ends everything now, with a GOAWAY of that code. `breach` is what the peer has done to deserve it, if anything. */
  abort(code: ErrorCode, detail: string, breach: Breach | null = null): void {
    if (this.#closed) return;
    if (breach !== null) this.#options.breached(breach);
    this.#goAway(code, '');
    const error = code === ErrorCode.NO_ERROR ? null : connectionError(errorCodeName(code) as ErrorCodeName, detail);
    this.#end(error, { code: ErrorCode.CANCEL, unprocessed: false, detail });
    this.#sender.close();
  }

  /**
   * Keep-alive (spec §6.3): sends a PING when nothing was received for `idle` ms, gives up when nothing came for
   * `timeout` ms after it. Any frame is an answer, so no PING is sent while bytes flow. Called every second or so.
   */
  keepAlive(idle: number, timeout: number): void {
    if (this.#closed) return;
    this.#windows.adapt();
    this.#scheduler.tick();
    if (this.#options.role === 'server' && this.accepting) this.#leaveStalled();
    const now = this.#options.now();
    for (let stalled = this.#scheduler.countStalled(now); stalled > 0; stalled--)
      this.#options.breached('window-stall');
    const goingAway = this.#goingAway;
    if (goingAway.kind === 'announced' && now - goingAway.at >= ANNOUNCEMENT_PATIENCE) {
      this.#drainFinally();
      if (this.#closed) return;
    }
    if (this.#pingSentAt > 0) {
      if (now - this.#pingSentAt >= timeout)
        this.abort(ErrorCode.NO_ERROR, 'the peer did not answer a keep-alive PING');
    } else if (now - this.#lastActivity >= idle) {
      this.probe();
    }
  }

  /** Has a peer that lives give a sign of itself: sends a PING, unless one is unanswered. */
  probe(): void {
    if (this.#closed || this.#pingSentAt > 0) return;
    this.#pingSentAt = this.#options.now();
    this.#sender.ping(PingPurpose.KEEP_ALIVE);
  }

  #leaveStalled(): void {
    if (!this.#scheduler.isStuck(this.#streams.all(), STARVED_PATIENCE)) return;
    this.#options.breached('window-starved');
    this.drain();
  }

  #sendPreface(isServer: boolean): void {
    const { maxFrameSize, maxHeaderListSize, maxConcurrentStreams, connectionWindow } = this.#options;
    this.#sender.preface(
      !isServer,
      [
        isServer ? [SettingId.MAX_CONCURRENT_STREAMS, maxConcurrentStreams] : [SettingId.ENABLE_PUSH, 0],
        [SettingId.INITIAL_WINDOW_SIZE, this.#windows.announcedWindow],
        [SettingId.MAX_FRAME_SIZE, maxFrameSize],
        [SettingId.MAX_HEADER_LIST_SIZE, maxHeaderListSize],
      ],
      Math.max(0, connectionWindow - DEFAULT_WINDOW_SIZE),
    );
  }

  #peerGoesAway(lastStreamId: number, code: number): void {
    if (this.#goAwayReceived) this.#guard.count(this.#options.now(), 'useless-frames', 'GOAWAY');
    this.#goAwayReceived = true;
    if (this.#options.role === 'client') {
      if (lastStreamId > this.#lastProcessed) {
        throw connectionError('PROTOCOL_ERROR', 'GOAWAY for more streams than the one before');
      }
      this.#lastProcessed = lastStreamId;
    }
    this.#events.goingAway(code);
    if (this.#options.role === 'client') {
      const detail = `the peer went away (${errorCodeName(code)}) before it took the stream`;
      for (const stream of [...this.#streams.all()]) {
        if (stream.id <= lastStreamId) continue;
        this.#streams.abandon(stream);
        stream.handler.streamReset({ code: ErrorCode.REFUSED_STREAM, unprocessed: true, detail });
      }
    }
    this.#closeWhenIdle();
  }

  #pingAnswered(purpose: PingPurpose): void {
    if (purpose === PingPurpose.ROUND_TRIP) this.#windows.pingAnswered(this.#lastActivity);
    if (purpose === PingPurpose.LAST_STREAM && this.#goingAway.kind === 'announced') this.#drainFinally();
  }

  #drainFinally(): void {
    this.#goAway(ErrorCode.NO_ERROR, '');
    this.#closeWhenIdle();
  }

  #streamGone(): void {
    this.#events.streamClosed();
    this.#closeWhenIdle();
  }

  #closeWhenIdle(): void {
    if (this.#closed || this.#streams.size > 0 || (this.#goingAway.kind !== 'final' && !this.#goAwayReceived)) return;
    this.#goAway(ErrorCode.NO_ERROR, '');
    this.#end(null, ORDERLY);
    this.#sender.close();
  }

  #answersUnread(): void {
    if (this.#closed) return;
    const error = connectionError(
      'ENHANCE_YOUR_CALM',
      'the peer does not read the answers to what it sends',
      'unread-answers',
    );
    this.#options.breached(error.breach);
    this.#end(error, { code: error.http2Code, unprocessed: false, detail: error.message });
    this.#sender.close();
  }

  #fail(error: Http2Error): void {
    if (this.#closed) return;
    this.#options.breached(error.breach);
    this.#goAway(error.http2Code, error.message);
    this.#end(error, { code: error.http2Code, unprocessed: false, detail: error.message });
    this.#sender.close();
  }

  #end(error: Http2Error | null, reset: StreamReset): void {
    this.#closed = true;
    this.#reader.stop();
    this.#streams.dropAll(reset);
    this.#events.closed(error);
  }

  #goAway(code: number, debug: string): void {
    if (this.#goingAway.kind === 'final' && code === ErrorCode.NO_ERROR) return;
    this.#goingAway = FINAL;
    this.#sender.goAway(this.#streams.lastPeerId, code, debug);
  }
}

const NOT_GOING_AWAY: GoingAway = { kind: 'no' };
const FINAL: GoingAway = { kind: 'final' };
const ORDERLY: StreamReset = { code: ErrorCode.NO_ERROR, unprocessed: false, detail: 'closed' };

import { readRequestHead, readResponseHead, readTrailers } from './connect-headers.ts';
import type { FloodGuard } from './flood-guard.ts';
import type { FrameSink } from './frame-reader.ts';
import type { FrameSender } from './frame-sender.ts';
import { DEFAULT_HEADER_TABLE_SIZE, FrameFlag, FrameType, MAX_WINDOW_SIZE, readUint31, readUint32 } from './frames.ts';
import { type HeaderField, HpackDecoder } from './hpack.ts';
import { type Breach, connectionError, ErrorCode, errorCodeName, streamError } from './http-error.ts';
import type { Http2Events, Http2Options } from './http2.ts';
import { type PingPurpose, pingPurpose } from './ping.ts';
import { applySettings, type Settings, type SettingsEffects } from './settings.ts';
import type { Http2Stream } from './stream.ts';
import type { StreamTable } from './stream-table.ts';

/** What the rest of the connection is told. */
export interface ConnectionEvents {
  readonly refusesStreams: boolean;
  goAway(lastStreamId: number, code: number): void;
  pingAnswered(purpose: PingPurpose): void;
}

/** What each frame of the peer does (RFC 9113 §6), and what may not be. Throws connection errors. */
export class FrameHandler implements FrameSink {
  readonly #options: Http2Options;
  readonly #events: Http2Events;
  readonly #connection: ConnectionEvents;
  readonly #streams: StreamTable;
  readonly #peer: Settings;
  readonly #sender: FrameSender;
  readonly #guard: FloodGuard;
  readonly #decoder: HpackDecoder;
  readonly #isServer: boolean;
  readonly #settingsEffects: SettingsEffects;
  /** Whose DATA frame is being received; null when nobody wants it. */
  #dataStream: Http2Stream | null = null;
  /** The peer's SETTINGS have arrived: it speaks HTTP/2. */
  established = false;

  constructor(
    options: Http2Options,
    events: Http2Events,
    connection: ConnectionEvents,
    streams: StreamTable,
    peer: Settings,
    sender: FrameSender,
    guard: FloodGuard,
  ) {
    this.#options = options;
    this.#events = events;
    this.#connection = connection;
    this.#streams = streams;
    this.#peer = peer;
    this.#sender = sender;
    this.#guard = guard;
    this.#isServer = options.role === 'server';
    this.#decoder = new HpackDecoder({
      maxTableSize: DEFAULT_HEADER_TABLE_SIZE,
      maxHeaderListSize: options.maxHeaderListSize,
    });
    this.#settingsEffects = {
      headerTableSize: (size) => sender.setHeaderTableSize(size),
      initialWindowSize: (change) => this.#changeWindows(change),
    };
  }

  dataStarts(streamId: number, flags: number, length: number): void {
    const streams = this.#streams;
    const stream = streams.get(streamId);
    if (stream === undefined && streams.isIdle(streamId))
      throw connectionError('PROTOCOL_ERROR', 'DATA on an idle stream');
    streams.windows.received(length);
    this.#dataStream = null;
    if (stream === undefined) this.#dataOnClosed(streamId);
    else if (stream.remoteEnded) {
      streams.fault(stream, streamError(streamId, 'STREAM_CLOSED', 'DATA after END_STREAM'));
    } else if (length > stream.receiveWindow) {
      streams.fault(stream, streamError(streamId, 'FLOW_CONTROL_ERROR', 'more DATA than the stream window'));
    } else if (!stream.headReceived) {
      // RFC 9113 §8.1
      streams.fault(stream, streamError(streamId, 'PROTOCOL_ERROR', 'DATA before the response'));
    } else {
      stream.receiveWindow -= length;
      this.#dataStream = stream;
    }
    if (length === 0 && (flags & FrameFlag.END_STREAM) === 0) this.#useless('empty-frames', 'empty DATA');
  }

  dataPadding(length: number, isAll: boolean): void {
    if (isAll) this.#useless('empty-frames', 'DATA of padding only');
    const stream = this.#dataStream;
    if (stream !== null && !stream.closed) this.#streams.windows.padding(stream, length);
  }

  data(offset: number, length: number): void {
    const stream = this.#dataStream;
    if (stream === null || stream.closed) return;
    stream.uncredited += length;
    stream.handler.streamData(offset, length);
  }

  dataEnds(endStream: boolean): void {
    const stream = this.#dataStream;
    this.#dataStream = null;
    if (endStream && stream !== null && !stream.closed) this.#streams.endRemote(stream);
  }

  frame(type: number, flags: number, streamId: number, bytes: Uint8Array, at: number, length: number): void {
    switch (type) {
      case FrameType.WINDOW_UPDATE:
        this.#windowUpdate(streamId, bytes, at, length);
        break;
      case FrameType.RST_STREAM:
        this.#rstStream(streamId, bytes, at, length);
        break;
      case FrameType.SETTINGS:
        this.#settings(flags, streamId, bytes, at, length);
        break;
      case FrameType.PING:
        this.#ping(flags, streamId, bytes, at, length);
        break;
      case FrameType.GOAWAY:
        this.#goAway(streamId, bytes, at, length);
        break;
      case FrameType.PUSH_PROMISE:
        throw connectionError('PROTOCOL_ERROR', 'PUSH_PROMISE although push is not enabled');
      case FrameType.PRIORITY:
        if (streamId === 0) throw connectionError('PROTOCOL_ERROR', 'PRIORITY on stream 0');
        this.#useless('useless-frames', 'PRIORITY');
        if (length !== 5) this.#wrongPriority(streamId, length);
        break;
      default:
        // RFC 9113 §4.1: frames of unknown types are discarded.
        this.#useless('useless-frames', 'unknown frame');
    }
  }

  headerBlock(streamId: number, ends: boolean, bytes: Uint8Array, at: number, length: number): void {
    // Decoded in any case: the dynamic table must stay in step.
    const fields = this.#decoder.decode(bytes, at, length);
    const streams = this.#streams;
    const stream = streams.get(streamId);
    if (stream === undefined) {
      if (this.#isServer && streamId > streams.lastPeerId) this.#newStream(streamId, fields, ends);
      else if (streams.isIdle(streamId)) throw connectionError('PROTOCOL_ERROR', 'HEADERS on an idle stream');
      else this.#headersOnClosed(streamId);
    } else if (stream.remoteEnded) {
      streams.fault(stream, streamError(streamId, 'STREAM_CLOSED', 'HEADERS after END_STREAM'));
    } else if (fields === 'list-too-large') {
      streams.fault(stream, streamError(streamId, 'ENHANCE_YOUR_CALM', 'header list too large', 'header-list'));
    } else {
      const fault = stream.headReceived ? trailersFault(fields, ends) : this.#response(stream, fields, ends);
      if (fault !== null) streams.fault(stream, streamError(streamId, 'PROTOCOL_ERROR', fault));
      else if (ends && !stream.closed) streams.endRemote(stream);
    }
  }

  /** A response, interim or final. Returns what makes it malformed (RFC 9113 §8.1.1). */
  #response(stream: Http2Stream, fields: readonly HeaderField[], ends: boolean): string | null {
    const head = readResponseHead(fields);
    if (head.kind === 'malformed') return `malformed response: ${head.detail}`;
    if (head.kind === 'interim') {
      if (ends) return `malformed response: an interim ${head.status} that ends the stream`;
      this.#useless('useless-frames', 'interim response');
      return null;
    }
    stream.headReceived = true;
    stream.handler.streamResponse(head.status, head.headers);
    return null;
  }

  #newStream(streamId: number, fields: HeaderField[] | 'list-too-large', ends: boolean): void {
    if ((streamId & 1) === 0) throw connectionError('PROTOCOL_ERROR', 'a client stream has an even id');
    const streams = this.#streams;
    streams.requested(streamId);
    // After GOAWAY, and beyond the limit: not processed, so the peer may try elsewhere (RFC 9113 §5.1.2, §8.7).
    if (this.#connection.refusesStreams || streams.size >= this.#options.maxConcurrentStreams) {
      this.#useless('rapid-reset', 'refused stream');
      streams.refuse(streamId, ErrorCode.REFUSED_STREAM, ends);
      return;
    }
    if (fields === 'list-too-large') {
      this.#options.breached('header-list');
      this.#useless('header-list', 'header list too large');
      streams.refuse(streamId, ErrorCode.ENHANCE_YOUR_CALM, ends);
      return;
    }
    const head = readRequestHead(fields);
    if (head.kind === 'malformed') {
      // RFC 9113 §8.1.1
      this.#options.breached('protocol');
      this.#useless('stream-errors', 'malformed request');
      streams.refuse(streamId, ErrorCode.PROTOCOL_ERROR, ends);
      return;
    }
    const stream = streams.add(streamId);
    if (stream === null) return;
    // Whoever answers at once ends the stream with the answer: there is nothing left to reset.
    stream.remoteEnded = ends;
    stream.headReceived = true;
    stream.handler = this.#events.request(stream, head);
    if (ends && !stream.closed) streams.endRemote(stream);
  }

  // RFC 9113 §5.1, closed: what crosses a reset of ours is late. Anything else the peer should have known; DATA is
  // answered with a stream error, which hurts nobody if the peer is only confused.
  #dataOnClosed(streamId: number): void {
    if (this.#streams.whyClosed(streamId) === 'reset-here') return;
    this.#useless('stream-errors', 'DATA on a closed stream');
    this.#options.breached('protocol');
    this.#sender.reset(streamId, ErrorCode.STREAM_CLOSED);
  }

  #headersOnClosed(streamId: number): void {
    switch (this.#streams.whyClosed(streamId)) {
      case 'reset-here':
        this.#useless('useless-frames', 'HEADERS on a closed stream');
        break;
      case 'closed':
        throw connectionError('STREAM_CLOSED', 'HEADERS on a closed stream');
      case 'skipped':
        throw connectionError('PROTOCOL_ERROR', 'a request on a stream below the last one');
    }
  }

  // RFC 9113 §6.3. Nothing can be sent on a stream that is not open: there the connection has to pay for it.
  #wrongPriority(streamId: number, length: number): void {
    const stream = this.#streams.get(streamId);
    const what = `PRIORITY of ${length} octets`;
    if (stream !== undefined) this.#streams.fault(stream, streamError(streamId, 'FRAME_SIZE_ERROR', what));
    else throw connectionError('FRAME_SIZE_ERROR', what);
  }

  #settings(flags: number, streamId: number, bytes: Uint8Array, at: number, length: number): void {
    if (streamId !== 0) throw connectionError('PROTOCOL_ERROR', 'SETTINGS on a stream');
    if ((flags & FrameFlag.ACK) !== 0) {
      if (length !== 0) throw connectionError('FRAME_SIZE_ERROR', 'SETTINGS acknowledgement with a payload');
      this.#useless('settings-flood', 'SETTINGS acknowledgement');
      this.#streams.windows.settingsAcknowledged();
      return;
    }
    if (length % 6 !== 0) throw connectionError('FRAME_SIZE_ERROR', `SETTINGS of ${length} octets`);
    const peer = this.#peer;
    if (this.established) this.#useless('settings-flood', 'SETTINGS');
    else peer.maxConcurrentStreams = 0xffffffff;
    this.established = true;
    const windowBefore = peer.initialWindowSize;
    applySettings(peer, this.#isServer ? 'client' : 'server', bytes, at, length, this.#settingsEffects);
    this.#sender.settingsAck();
    if (peer.initialWindowSize > windowBefore) this.#streams.scheduler.wake();
  }

  #changeWindows(change: number): void {
    for (const stream of this.#streams.all()) {
      stream.sendWindow += change;
      if (stream.sendWindow > MAX_WINDOW_SIZE)
        throw connectionError('FLOW_CONTROL_ERROR', 'a stream window exceeds 2^31-1');
    }
  }

  #windowUpdate(streamId: number, bytes: Uint8Array, at: number, length: number): void {
    if (length !== 4) throw connectionError('FRAME_SIZE_ERROR', `WINDOW_UPDATE of ${length} octets`);
    const increment = readUint31(bytes, at);
    const streams = this.#streams;
    streams.scheduler.checkUpdate(increment, this.#options.now());
    if (streamId === 0) {
      if (increment === 0) throw connectionError('PROTOCOL_ERROR', 'WINDOW_UPDATE of 0');
      streams.scheduler.windowOpened(increment);
      return;
    }
    const stream = streams.get(streamId);
    if (stream === undefined) {
      if (streams.isIdle(streamId)) throw connectionError('PROTOCOL_ERROR', 'WINDOW_UPDATE on an idle stream');
      return;
    }
    if (increment === 0) {
      streams.fault(stream, streamError(stream.id, 'PROTOCOL_ERROR', 'WINDOW_UPDATE of 0'));
      return;
    }
    stream.sendWindow += increment;
    if (stream.sendWindow > MAX_WINDOW_SIZE) {
      streams.fault(stream, streamError(stream.id, 'FLOW_CONTROL_ERROR', 'the stream window exceeds 2^31-1'));
      return;
    }
    streams.scheduler.streamOpened(stream, increment);
  }

  #rstStream(streamId: number, bytes: Uint8Array, at: number, length: number): void {
    if (streamId === 0) throw connectionError('PROTOCOL_ERROR', 'RST_STREAM on stream 0');
    if (length !== 4) throw connectionError('FRAME_SIZE_ERROR', `RST_STREAM of ${length} octets`);
    if (this.#streams.isIdle(streamId)) throw connectionError('PROTOCOL_ERROR', 'RST_STREAM on an idle stream');
    this.#useless('rapid-reset', 'RST_STREAM');
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    const code = readUint32(bytes, at);
    this.#streams.drop(stream);
    stream.handler.streamReset({
      code,
      unprocessed: code === ErrorCode.REFUSED_STREAM,
      detail: `stream reset by the peer: ${errorCodeName(code)}`,
    });
  }

  #ping(flags: number, streamId: number, bytes: Uint8Array, at: number, length: number): void {
    if (streamId !== 0) throw connectionError('PROTOCOL_ERROR', 'PING on a stream');
    if (length !== 8) throw connectionError('FRAME_SIZE_ERROR', `PING of ${length} octets`);
    this.#useless('ping-flood', 'PING');
    if ((flags & FrameFlag.ACK) === 0) {
      this.#sender.pingAck(bytes, at);
      return;
    }
    const purpose = pingPurpose(bytes, at);
    if (purpose !== null) this.#connection.pingAnswered(purpose);
  }

  #goAway(streamId: number, bytes: Uint8Array, at: number, length: number): void {
    if (streamId !== 0) throw connectionError('PROTOCOL_ERROR', 'GOAWAY on a stream');
    if (length < 8) throw connectionError('FRAME_SIZE_ERROR', `GOAWAY of ${length} octets`);
    this.#connection.goAway(readUint31(bytes, at), readUint32(bytes, at + 4));
  }

  /** Bounds frames that cost their sender nothing. */
  #useless(breach: Breach, what: string): void {
    this.#guard.count(this.#options.now(), breach, what);
  }
}

/** What makes a header block behind the content malformed (RFC 9113 §8.1), or null. */
function trailersFault(fields: readonly HeaderField[], ends: boolean): string | null {
  if (!ends) return 'trailers without END_STREAM';
  const head = readTrailers(fields);
  return head.kind === 'malformed' ? `malformed trailers: ${head.detail}` : null;
}

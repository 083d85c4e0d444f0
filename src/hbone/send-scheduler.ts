// Hot path (bench/: relay, pods): asked per read of an application and per DATA frame.

import { FloodGuard } from './flood-guard.ts';
import type { FrameSender } from './frame-sender.ts';
import { DEFAULT_WINDOW_SIZE, MAX_WINDOW_SIZE } from './frames.ts';
import { connectionError } from './http-error.ts';
import type { Http2Stream } from './stream.ts';

/** Bytes that may wait in the transport before streams stop sending, and below which they go on. */
const HIGH_WATER = 512 * 1024;
const LOW_WATER = 128 * 1024;

/**
 * The most that a stream should have ready in its turn: a read of the largest size when there is room for everybody, the stream's
 * share of what may wait when there is not, but no less than a TLS record holds.
 */
const MAX_TURN = 256 * 1024;
const MIN_TURN = 16 * 1024;

/** A lead of more bytes is not made up for: who has it would stand still for the rest of the second. */
const MOST_LEAD = 4 * MAX_TURN;

/** After so many bytes without congestion, turns have their full length again. */
const AT_EASE = 4 * HIGH_WATER;

/**
 * WINDOW_UPDATE below this many bytes makes us send frames that are hardly more than their headers. A peer earns such
 * updates by DATA that its windows had not cut short.
 */
const SMALL_UPDATE = 256;
const AMPLE_WINDOW = 1024;

/** A stream that waits this long (ms) for its window counts as stalled. */
const STALLED = 60_000;

/** Which stream may send how much: the peer's windows, what the transport takes, and turns. */
export class SendScheduler {
  readonly #sender: FrameSender;
  /** What the peer lets us send on the connection. */
  window = DEFAULT_WINDOW_SIZE;
  /** The transport has more than it can send: no stream may add to it. */
  congested = false;
  /** For how many seconds streams have held nearly all of the connection's window. */
  starvedFor = 0;
  /** The most that the window has been since the last `tick`. */
  #peak = DEFAULT_WINDOW_SIZE;
  /** Sent and not returned as credit of the connection. */
  #unread = 0;
  /** More than half of the window has been in use since all of it was returned: credit may be part of what comes late. */
  #usedMostly = false;
  /** Credit of the connection or of a stream has come since the last `tick`. */
  #credited = false;
  #wasHeldBack = false;
  /** When the peer returns credit: once half of a window has been read, as nearly all do, or (a guess) later, or when all is used. */
  #returns: 'unknown' | 'by half' | 'later' | 'at the end' = 'unknown';
  /** The one stream that need not leave a reserve, until credit comes. */
  #unreserved: Http2Stream | null = null;
  #waiting: Http2Stream[] = [];
  /** Which second `served` of a stream is about. */
  #second = 0;
  #turn = MAX_TURN;
  #sentInShortTurns = 0;
  readonly #smallUpdates: FloodGuard;

  constructor(sender: FrameSender, now: number) {
    this.#sender = sender;
    this.#smallUpdates = new FloodGuard(now);
  }

  /** Bytes that the stream may send now. */
  sendable(stream: Http2Stream): number {
    if (this.congested) return 0;
    const most = Math.max(0, Math.min(stream.sendWindow, this.window));
    if (this.#returns === 'at the end') return most;
    if (this.#returns !== 'later') return Math.min(most, this.#share(stream));
    if (stream === this.#unreserved) return most;
    // The guess may be wrong, so that a quarter stays for siblings.
    const reserve = Math.floor((this.window + this.#unread) / 4);
    return Math.min(most, Math.max(this.#share(stream), this.window - reserve));
  }

  /**
   * A peer may return the connection's credit only for what has been read, so that a single stalled stream could use up the
   * window of all. A stream that has more than half of its own window unread therefore leaves the other half of the
   * connection's to its siblings. Not less than half: until then most peers (nghttp2, h2, Netty, Go) return nothing, so that
   * a stalled stream looks like any other.
   */
  #share(stream: Http2Stream): number {
    return Math.max(0, halfway(this.window, this.#unread), halfway(stream.sendWindow, stream.unread));
  }

  /** Bytes that the stream should get ready to send at a time. 0 only when it may send nothing. */
  turn(stream: Http2Stream): number {
    return Math.min(this.sendable(stream), this.#turn);
  }

  /** Sends at most `sendable` bytes; the 9 bytes in front of them are overwritten. */
  send(stream: Http2Stream, offset: number, length: number): void {
    stream.served = this.#served(stream) + length;
    stream.servedIn = this.#second;
    stream.sendWindow -= length;
    stream.unread += length;
    this.window -= length;
    this.#unread += length;
    // A byte more than half is half, rounded up.
    if (stream.unread > stream.sendWindow + 1) stream.usedMostly = true;
    if (this.#unread > this.window + 1) this.#usedMostly = true;
    if (stream.sendWindow >= AMPLE_WINDOW && this.window >= AMPLE_WINDOW) this.#smallUpdates.earn(2);
    const queued = this.#sender.data(stream.id, offset, length);
    if (queued > HIGH_WATER && !this.congested) this.congested = this.#sender.flush() > LOW_WATER;
    if (this.#turn === MAX_TURN) return;
    this.#sentInShortTurns += length;
    if (this.#sentInShortTurns > AT_EASE) this.#turn = MAX_TURN;
  }

  /** The stream has more to send than it may. It is told when that changes. */
  wait(stream: Http2Stream): void {
    if (stream.waiting || stream.closed) return;
    stream.waiting = true;
    stream.waitingSince = 0;
    this.#waiting.push(stream);
  }

  stopWaiting(stream: Http2Stream): void {
    if (!stream.waiting) return;
    stream.waiting = false;
    const at = this.#waiting.indexOf(stream);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /** Bounds updates that are too small to be of use. Throws ENHANCE_YOUR_CALM. */
  checkUpdate(increment: number, now: number): void {
    if (increment < SMALL_UPDATE) this.#smallUpdates.count(now, 'window-trickle', `WINDOW_UPDATE of ${increment}`);
  }

  /** How many more streams have stalled. Called every second or so. */
  countStalled(now: number): number {
    let stalled = 0;
    for (const stream of this.#waiting) {
      if (stream.sendWindow > 0 && !this.#heldBack(stream)) continue;
      if (stream.waitingSince === 0) stream.waitingSince = now;
      else if (now - stream.waitingSince >= STALLED) {
        stream.waitingSince = Number.POSITIVE_INFINITY;
        stalled++;
      }
    }
    return stalled;
  }

  /** Called every second or so. */
  tick(): void {
    this.#second++;
    this.starvedFor = this.#isScarce(this.#peak) ? this.starvedFor + 1 : 0;
    this.#peak = this.window;
    const heldBack = this.#waiting.find((stream) => this.#heldBack(stream));
    const gaveNothing = this.#wasHeldBack && !this.#credited;
    this.#wasHeldBack = heldBack !== undefined;
    this.#credited = false;
    if (heldBack !== undefined && gaveNothing) this.#letMoreBeUsed(heldBack);
  }

  /**
   * Nothing has come back while a stream was held back: its reader has stalled, or the peer returns credit later than supposed.
   * A stream that has used up its own window and got nothing has stalled for certain: then that explains it, and the reserve
   * stays. Otherwise one stream may use the reserve, as there are peers that return credit only when all is used.
   */
  #letMoreBeUsed(heldBack: Http2Stream): void {
    if (this.#returns === 'unknown') this.#returns = 'later';
    else if (this.#returns === 'later' && !this.#waiting.some(hasUsedItsWindow)) this.#unreserved = heldBack;
    else return;
    this.#wasHeldBack = false;
    this.wake();
  }

  /**
   * For so many seconds streams have held nearly all of the window, and those that sent something meanwhile hold less than a
   * quarter of it: the rest have stalled, or nearly so. A peer that returns credit in small pieces, each used at once, looks
   * starved too while all of its streams move.
   */
  isStuck(streams: Iterable<Http2Stream>, seconds: number): boolean {
    if (this.starvedFor < seconds) return false;
    let moving = 0;
    for (const stream of streams) if (this.#second - stream.servedIn < seconds) moving += stream.unread;
    return this.#isScarce(this.window + moving);
  }

  /** That is less than a quarter of the connection's window. */
  #isScarce(window: number): boolean {
    return 4 * window < this.window + this.#unread;
  }

  /** Bytes that it has sent since the last `tick`, as far as they count. */
  #served(stream: Http2Stream): number {
    return stream.servedIn === this.#second ? Math.min(stream.served, MOST_LEAD) : 0;
  }

  /** Waits only because of its share. */
  #heldBack(stream: Http2Stream): boolean {
    return stream.sendWindow > 0 && this.window > 0 && !this.congested && this.sendable(stream) === 0;
  }

  /** WINDOW_UPDATE of the connection. */
  windowOpened(increment: number): void {
    // More than was sent is a window that grows, which says nothing of what is returned when.
    if (increment <= this.#unread && !this.#usedMostly) this.#returns = 'by half';
    else if (this.#unreserved !== null && this.window === 0) this.#returns = 'at the end';
    this.#unreserved = null;
    this.window += increment;
    this.#unread = Math.max(0, this.#unread - increment);
    if (this.#unread === 0) this.#usedMostly = false;
    this.#credited = true;
    this.#peak = Math.max(this.#peak, this.window);
    if (!this.#isScarce(this.window)) this.starvedFor = 0;
    if (this.window > MAX_WINDOW_SIZE)
      throw connectionError('FLOW_CONTROL_ERROR', 'the connection window exceeds 2^31-1');
    this.wake();
  }

  /** WINDOW_UPDATE of a stream, whose window is larger by that already. */
  streamOpened(stream: Http2Stream, increment: number): void {
    if (increment <= stream.unread && !stream.usedMostly) this.#returns = 'by half';
    stream.unread = Math.max(0, stream.unread - increment);
    if (stream.unread === 0) stream.usedMostly = false;
    this.#credited = true;
    if (!stream.waiting || this.sendable(stream) === 0) return;
    this.stopWaiting(stream);
    stream.handler.streamWritable();
  }

  /** The transport has sent some of what waited; `queued` bytes are left. */
  drained(queued: number): void {
    if (!this.congested || queued > LOW_WATER) return;
    this.congested = false;
    this.wake();
  }

  /**
   * Every waiting stream that can send gets its turn: first who has sent least of late, as one that happened to begin before
   * the others would stay ahead of them, then who waits longest. Turns are so long that all of them together are about what
   * may wait.
   */
  wake(): void {
    if (this.#waiting.length === 0 || this.congested) return;
    const waiting = this.#waiting.sort((one, other) => this.#served(one) - this.#served(other));
    this.#turn = Math.min(MAX_TURN, Math.max(MIN_TURN, Math.floor(HIGH_WATER / waiting.length)));
    this.#sentInShortTurns = 0;
    const passedOver: Http2Stream[] = [];
    this.#waiting = [];
    for (const stream of waiting) {
      if (stream.closed) continue;
      if (this.sendable(stream) === 0) {
        passedOver.push(stream);
        continue;
      }
      stream.waiting = false;
      stream.handler.streamWritable();
    }
    if (passedOver.length > 0) this.#waiting = passedOver.concat(this.#waiting);
  }
}

/** How much to send until half of a window is used, rounded up: peers that want more than half of 65535 mean 32768. */
function halfway(window: number, used: number): number {
  return Math.ceil((window - used) / 2);
}

function hasUsedItsWindow(stream: Http2Stream): boolean {
  return stream.sendWindow <= 0 && stream.unread > 0;
}

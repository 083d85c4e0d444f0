// Hot path (bench/: relay, pods): called per DATA frame and per portion that a reader has taken.
import type { FrameSender } from './frame-sender.ts';
import { DEFAULT_WINDOW_SIZE } from './frames.ts';
import { connectionError } from './http-error.ts';
import type { Http2Options } from './http2.ts';
import { PingPurpose } from './ping.ts';
import type { Http2Stream } from './stream.ts';

/**
 * A stream that uses up a whole window in less than four round trips and this time (ms) wants a larger one. Four, because
 * credit is returned in quarters; the time is what a busy node may keep a thread from its turn.
 */
const ROUND_TRIPS = 4;
const SCHEDULING = 10;

/**
 * Round trip (ms) until one is measured, how long a measurement holds, and from where on peers are far: between regions; a
 * busy node answers no later.
 */
const ASSUMED_ROUND_TRIP = 50;
const MEASURED_FOR = 10_000;
const FAR = 20;

/**
 * A window grows to a size when the reader has taken so many times that size. A reader that has stopped cannot be told
 * from a fast one before the buffers of its kernel are full, which are some megabytes; between far peers there are many
 * round trips to gain, and no such readers by the hundred.
 */
const PROOF = 8;
const PROOF_FAR = 2;

/** How much smaller (as a shift) windows start when that share of the budget is in use. */
const PRESSURE: ReadonlyArray<readonly [share: number, shift: number]> = [
  [3 / 4, 6],
  [1 / 2, 4],
  [1 / 4, 2],
];
const LEAST_PRESSURE = Math.min(...PRESSURE.map(([share]) => share));
const MIN_WINDOW = 4096;

/** One step of PRESSURE makes windows so many times smaller: as much room must be there before they grow by that again. */
const STEP = 4;

/**
 * What the peer may send (RFC 9113 §6.9). Credit of the connection is returned on receipt, that of a stream when its
 * reader has taken the bytes: what a stream holds back never stops its siblings. Windows of streams start small and grow
 * with measured demand; when the budget is tight all windows of the connection start smaller, and those that are open and
 * not in use shrink with them.
 */
export class ReceiveWindows {
  readonly #options: Http2Options;
  readonly #sender: FrameSender;
  readonly #streams: () => Iterable<Http2Stream>;
  #window: number;
  #uncredited = 0;
  /** What the last SETTINGS said, and whether they are acknowledged. */
  #announced: number;
  #acknowledged = false;
  /**
   * What a new stream starts with. A larger window holds from when it is announced, a smaller one from when it is
   * acknowledged: until then the peer may go by the old one (RFC 9113 §6.9.2, §6.5.3).
   */
  initialWindow: number;
  /** When something was last received. */
  #now: number;
  readonly #begun: number;
  /** The shortest that was measured, in ms. */
  #roundTrip = Number.POSITIVE_INFINITY;
  #measuredAt = Number.NEGATIVE_INFINITY;
  #measuring = false;

  /** The preface must announce `announcedWindow`. `streams` are those that are open. */
  constructor(options: Http2Options, sender: FrameSender, streams: () => Iterable<Http2Stream>) {
    this.#options = options;
    this.#sender = sender;
    this.#streams = streams;
    this.#window = options.connectionWindow;
    this.#begun = options.now();
    this.#now = this.#begun;
    this.#announced = this.#fitting(1);
    this.initialWindow = Math.max(this.#announced, DEFAULT_WINDOW_SIZE);
  }

  /** SETTINGS_INITIAL_WINDOW_SIZE as it was last announced. */
  get announcedWindow(): number {
    return this.#announced;
  }

  /** The time at which what comes now was received. */
  set now(now: number) {
    this.#now = now;
  }

  opened(stream: Http2Stream): void {
    stream.windowStart = this.#now;
    this.#options.budget.reserve(stream.windowSize);
    if (this.#acknowledged && this.#fitting(1) < this.#announced) this.#announce(this.#fitting(1));
  }

  closed(stream: Http2Stream): void {
    this.#options.budget.giveBack(stream.windowSize);
    stream.windowSize = 0;
  }

  settingsAcknowledged(): void {
    if (this.#acknowledged) return;
    this.#acknowledged = true;
    // The first acknowledgement is a measurement without any load; a PING of a busy tunnel waits behind its bytes.
    this.#roundTrip = Math.min(this.#roundTrip, this.#now - this.#begun);
    this.#apply(this.#announced);
  }

  /** Called every second or so: windows start larger again, by a step, when there is room for it. */
  adapt(): void {
    if (!this.#acknowledged) return;
    const fitting = Math.min(this.#fitting(STEP), STEP * this.#announced);
    if (fitting > this.#announced) this.#announce(fitting);
  }

  /** The peer has answered the PING that measures a round trip. */
  pingAnswered(now: number): void {
    if (!this.#measuring) return;
    this.#measuring = false;
    this.#roundTrip = Math.min(this.#roundTrip, now - this.#measuredAt);
  }

  /** A DATA frame came, for a stream that is gone perhaps. */
  received(length: number): void {
    if (length > this.#window) throw connectionError('FLOW_CONTROL_ERROR', 'more DATA than the connection window');
    this.#window -= length;
    this.#uncredited += length;
    if (this.#uncredited >= this.#options.connectionWindow >> 2) {
      this.#sender.windowUpdate(0, this.#uncredited);
      this.#window += this.#uncredited;
      this.#uncredited = 0;
    }
  }

  /** Returns credit to the peer; the window grows when the stream is fast and its reader keeps up. */
  credit(stream: Http2Stream, bytes: number): void {
    if (stream.closed || stream.remoteEnded) return;
    stream.uncredited -= bytes;
    stream.credited += bytes;
    const grown = stream.credited < stream.windowSize ? 0 : this.#resize(stream, bytes);
    const { padding } = stream;
    stream.padding = 0;
    this.#open(stream, bytes + padding + grown);
  }

  /** Padding counts against the window but reaches nobody: its credit is returned without anybody taking it. */
  padding(stream: Http2Stream, bytes: number): void {
    stream.padding += bytes;
    if (stream.padding < stream.creditThreshold || stream.remoteEnded) return;
    const { padding } = stream;
    stream.padding = 0;
    this.#open(stream, padding);
  }

  /** Lets the peer send so much more, less what it has been given beyond the size of the window. */
  #open(stream: Http2Stream, credit: number): void {
    const withheld = Math.min(stream.beyond, credit);
    const increment = credit - withheld;
    stream.beyond -= withheld;
    if (increment <= 0) return;
    stream.receiveWindow += increment;
    this.#sender.windowUpdate(stream.id, increment);
  }

  /** A whole window has been used and taken. Returns by how much it grows; below 0 when it shrinks, -`credit` at most. */
  #resize(stream: Http2Stream, credit: number): number {
    this.#measure();
    const elapsed = this.#now - stream.windowStart;
    const roundTrip = this.#roundTrip === Number.POSITIVE_INFINITY ? ASSUMED_ROUND_TRIP : this.#roundTrip;
    stream.taken += stream.credited;
    stream.credited = 0;
    stream.windowStart = this.#now;
    const { maxWindow, budget } = this.#options;
    if (elapsed < SCHEDULING + ROUND_TRIPS * roundTrip) {
      const growth = Math.min(stream.windowSize, maxWindow - stream.windowSize);
      const proof = (roundTrip > FAR ? PROOF_FAR : PROOF) * (stream.windowSize + growth);
      if (growth <= 0 || stream.taken < proof || !budget.take(growth)) return 0;
      stream.windowSize += growth;
      return growth;
    }
    // Not in need of what it has once grown to, while others are.
    const excess = Math.min(stream.windowSize - this.initialWindow, credit);
    if (excess <= 0 || pressure(budget.total / budget.limit) === 0) return 0;
    stream.windowSize -= excess;
    stream.kept = Math.min(stream.kept, stream.windowSize - this.initialWindow);
    budget.giveBack(excess);
    return -excess;
  }

  #measure(): void {
    if (this.#now - this.#measuredAt < MEASURED_FOR) return;
    this.#measuring = true;
    this.#measuredAt = this.#options.now();
    this.#sender.ping(PingPurpose.ROUND_TRIP);
  }

  #announce(window: number): void {
    this.#announced = window;
    this.#acknowledged = false;
    this.#sender.initialWindow(window);
    if (window > this.initialWindow) this.#apply(window);
  }

  /** RFC 9113 §6.9.2: the change applies to every open stream. */
  #apply(window: number): void {
    const change = window - this.initialWindow;
    if (change === 0) return;
    this.initialWindow = window;
    for (const stream of this.#streams()) {
      stream.receiveWindow += change;
      // Credit that is held back until it is worth a frame could be all of a smaller window: this one keeps its own.
      if (change < 0 && stream.uncredited + stream.padding > 0) this.#keep(stream, -change);
      else this.#change(stream, change);
    }
  }

  /** The peer has taken `bytes` from its window, which stays as large as it is. */
  #keep(stream: Http2Stream, bytes: number): void {
    stream.kept += bytes;
    this.#open(stream, bytes);
  }

  /** A window grows by what it has not kept, up to the largest there is; credit makes up for the rest. */
  #change(stream: Http2Stream, change: number): void {
    const most = Math.max(this.#options.maxWindow, this.initialWindow);
    const kept = Math.max(0, Math.min(stream.kept, change));
    const beyond = Math.max(kept, Math.min(change, stream.windowSize + change - most), 0);
    stream.kept -= kept;
    stream.beyond += beyond;
    stream.windowSize += change - beyond;
    this.#options.budget.reserve(change - beyond);
  }

  /** What new streams should start with if `factor` times as much of the budget were in use. */
  #fitting(factor: number): number {
    const { initialWindow, budget } = this.#options;
    const shift = pressure((factor * budget.total) / budget.limit);
    return Math.max(initialWindow >> shift, Math.min(initialWindow, MIN_WINDOW));
  }
}

function pressure(share: number): number {
  if (share < LEAST_PRESSURE) return 0;
  for (const [least, shift] of PRESSURE) if (share >= least) return shift;
  return 0;
}

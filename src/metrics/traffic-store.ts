/** Traffic series of the whole process, on the control thread: what the threads reported, summed per label set. */
import { labelText } from './exposition.ts';
import { TRAFFIC } from './families.ts';
import type { Family } from './family.ts';
import type { Registry, RenderedSample } from './registry.ts';
import { CLOSED, OPENED, RECEIVED, SENT, TRAFFIC_STRIDE, type TrafficReport } from './traffic.ts';
import { LEADING_LABELS, labelsOfKey, RESPONSE_FLAGS, TRAILING_LABELS } from './traffic-labels.ts';

export interface TrafficStore {
  /** Adds what a thread counted. `thread` names one incarnation of it. */
  merge(thread: string, report: TrafficReport, now: number): void;
  /** A thread ended: its connections are gone, what it counted stays. */
  forget(thread: string): void;
  /** Drops series that no connection uses and that nothing was counted in for `idleMs`. Returns how many. */
  evict(now: number, idleMs: number): number;
  size(): number;
}

interface Series {
  readonly key: string;
  readonly totals: Float64Array;
  /** Connections that use it, over all threads. */
  live: number;
  lastCounted: number;
}

/** What a thread's ids stand for, and how many connections it last said each has. */
type ThreadSeries = Map<number, { series: Series; live: number }>;

export function createTrafficStore(registry: Registry): TrafficStore {
  const seriesByKey = new Map<string, Series>();
  const threads = new Map<string, ThreadSeries>();

  function seriesOf(key: string, now: number): Series {
    let series = seriesByKey.get(key);
    if (series === undefined) {
      series = { key, totals: new Float64Array(TRAFFIC_STRIDE), live: 0, lastCounted: now };
      seriesByKey.set(key, series);
    }
    return series;
  }

  function merge(thread: string, report: TrafficReport, now: number): void {
    const known: ThreadSeries = threads.get(thread) ?? new Map();
    threads.set(thread, known);
    for (const [id, key] of report.defined) known.set(id, { series: seriesOf(key, now), live: 0 });
    for (const [at, id] of report.ids.entries()) {
      const entry = known.get(id);
      if (entry === undefined) continue;
      const { series } = entry;
      const live = report.live[at]!;
      series.live += live - entry.live;
      entry.live = live;
      if (addTo(series.totals, report.values, at * TRAFFIC_STRIDE)) series.lastCounted = now;
      if (live === 0) known.delete(id);
    }
  }

  for (const { family, ends } of EXPOSED) {
    registry.rendered(family, () => linesOf(seriesByKey.values(), ends));
  }

  return {
    merge,
    forget(thread) {
      for (const { series, live } of threads.get(thread)?.values() ?? []) series.live -= live;
      threads.delete(thread);
    },
    evict(now, idleMs) {
      let evicted = 0;
      for (const series of seriesByKey.values()) {
        if (series.live > 0 || now - series.lastCounted < idleMs) continue;
        seriesByKey.delete(series.key);
        evicted++;
      }
      return evicted;
    },
    size: () => seriesByKey.size,
  };
}

/** The samples of a series within one family: response flag and value. */
type Ends = (totals: Float64Array) => Iterable<readonly [flag: string, value: number]>;

/** In the incumbent's order. */
const EXPOSED: readonly { family: Family; ends: Ends }[] = [
  { family: TRAFFIC.opened, ends: (totals) => [['-', totals[OPENED]!]] },
  { family: TRAFFIC.closed, ends: (totals) => closedFrom(totals, 0) },
  { family: TRAFFIC.received, ends: (totals) => [['-', totals[RECEIVED]!]] },
  { family: TRAFFIC.sent, ends: (totals) => [['-', totals[SENT]!]] },
  { family: TRAFFIC.failed, ends: (totals) => closedFrom(totals, 1) },
];

function* closedFrom(totals: Float64Array, firstFlag: number): Generator<readonly [string, number]> {
  for (let at = firstFlag; at < RESPONSE_FLAGS.length; at++) {
    const value = totals[CLOSED + at]!;
    if (value > 0) yield [RESPONSE_FLAGS[at]!, value];
  }
}

function* linesOf(all: Iterable<Series>, ends: Ends): Generator<RenderedSample> {
  for (const { key, totals } of all) {
    let texts: { before: string; after: string } | null = null;
    for (const [flag, value] of ends(totals)) {
      texts ??= textsOf(key);
      yield { labelText: `${texts.before},response_flags="${flag}",${texts.after}`, value };
    }
  }
}

/** Label text before and after the response flag. Made anew for each scrape: kept, it would double a series' memory. */
function textsOf(key: string): { before: string; after: string } {
  const { leading, trailing } = labelsOfKey(key);
  return { before: labelText(LEADING_LABELS, leading), after: labelText(TRAILING_LABELS, trailing) };
}

/** Adds a report's values for one series; false when all are zero. */
function addTo(totals: Float64Array, values: Float64Array, start: number): boolean {
  let counted = false;
  for (let at = 0; at < TRAFFIC_STRIDE; at++) {
    const value = values[start + at]!;
    if (value === 0) continue;
    totals[at]! += value;
    counted = true;
  }
  return counted;
}

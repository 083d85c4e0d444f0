/** The metrics of one thread, and the report by which the control thread gets them. */

import { LOOP_LAG } from './families.ts';
import type { Family } from './family.ts';
import { type LoopLag, measureLoopLag } from './loop-lag.ts';
import { createTrafficCounters, type TrafficCounters, type TrafficReport } from './traffic.ts';

/** Stands for one label set of one family. Resolve it once and keep it. */
export type Slot = number;

export interface ThreadMetrics {
  readonly traffic: TrafficCounters;
  /** The slot of a counter or gauge, the same one for the same labels. Slots are never given back: use bounded labels. */
  slot(family: Family, ...labels: string[]): Slot;
  add(slot: Slot, amount: number): void;
  /** Gauges only. */
  set(slot: Slot, value: number): void;
  /** Runs before each report, to bring gauges up to date. */
  beforeReport(update: () => void): void;
  report(): ThreadReport;
  /** Stops measuring the loop's lag. */
  close(): void;
}

/** Structured-clonable; `transferListOf` gives what need not be copied. */
export interface ThreadReport {
  readonly traffic: TrafficReport;
  /** The slots that were not in an earlier report; they follow those that were. */
  readonly slots: readonly SlotDefinition[];
  /** By slot: what a counter counted since the last report, what a gauge stands at. */
  readonly values: Float64Array<ArrayBuffer>;
}

export interface SlotDefinition {
  readonly family: Family;
  readonly labels: readonly string[];
}

/** @param thread name of the thread in metrics, such as `worker-1`; null leaves the loop's lag out */
export function createThreadMetrics(thread: string | null): ThreadMetrics {
  const traffic = createTrafficCounters();
  const definitions: SlotDefinition[] = [];
  const slotByLabels = new Map<string, Slot>();
  const updates: (() => void)[] = [];
  let reported = 0;
  let values = new Float64Array(64);
  let lag: LoopLag | null = null;

  function slot(family: Family, ...labels: string[]): Slot {
    const key = [family.name, ...labels].join('\0');
    const known = slotByLabels.get(key);
    if (known !== undefined) return known;
    const fresh = definitions.length;
    definitions.push({ family, labels });
    slotByLabels.set(key, fresh);
    if (fresh === values.length) {
      const larger = new Float64Array(2 * values.length);
      larger.set(values);
      values = larger;
    }
    return fresh;
  }

  function report(): ThreadReport {
    for (const update of updates) update();
    const taken = values.slice(0, definitions.length);
    for (const [at, { family }] of definitions.entries()) if (family.type === 'counter') values[at] = 0;
    const slots = definitions.slice(reported);
    reported = definitions.length;
    return { traffic: traffic.report(), slots, values: taken };
  }

  function set(slot: Slot, value: number): void {
    values[slot] = value;
  }

  if (thread !== null) {
    const measured = measureLoopLag();
    lag = measured;
    const mean = slot(LOOP_LAG, thread, 'mean');
    const max = slot(LOOP_LAG, thread, 'max');
    updates.push(() => {
      const taken = measured.take();
      set(mean, taken.mean);
      set(max, taken.max);
    });
  }

  return {
    traffic,
    slot,
    add(slot, amount) {
      values[slot]! += amount;
    },
    set,
    beforeReport: (update) => updates.push(update),
    report,
    close: () => lag?.stop(),
  };
}

/** The buffers of a report, for the second argument of `postMessage`. */
export function transferListOf({ traffic, values }: ThreadReport): ArrayBuffer[] {
  return [traffic.ids.buffer, traffic.live.buffer, traffic.values.buffer, values.buffer];
}

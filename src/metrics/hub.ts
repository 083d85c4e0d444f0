/**
 * The process's metrics on the control thread: asks every thread for its report, sums the reports into the registry, and
 * drops traffic series that nothing uses any more.
 */
import { afterReading } from '../after-reading.ts';
import { expose } from './exposition.ts';
import { SERIES_EVICTED } from './families.ts';
import type { Registry } from './registry.ts';
import type { SlotDefinition, ThreadReport } from './thread-metrics.ts';
import { createTrafficStore } from './traffic-store.ts';

export interface MetricsHub {
  /**
   * Collects from all threads, evicts, and gives the exposition in chunks. A thread that does not answer within a second
   * is left out this time; its report counts when it comes.
   */
  scrape(): Promise<Iterable<string>>;
  /** Collects and evicts without a scrape; call it every minute or so, in case nobody scrapes. */
  refresh(): Promise<void>;
  /** A thread ended: its gauges go, its counters stay. */
  forget(thread: string): void;
}

/** A thread to ask. `name` must be unique per incarnation: a restarted worker is another thread. */
export interface ReportingThread {
  readonly name: string;
  /** May reject when the thread ends. */
  report(): Promise<ThreadReport>;
}

export interface MetricsHubOptions {
  registry: Registry;
  /** The threads there are now. */
  threads: () => Iterable<ReportingThread>;
  /** How long a series that no connection uses is kept after it last counted. Default one hour. */
  idleMs?: number;
  /** How long a scrape waits for a thread, in ms. Default one second. */
  reportMs?: number;
  now?: () => number;
  /** Told when a thread does not give a report, or gives one that cannot be used. */
  onError?: (thread: string, error: unknown) => void;
}

/**
 * Long enough that a series outlives pauses between batch jobs and any scrape interval, short enough that pods of the
 * last rollout do not fill the registry (spec §18.2, defect 19).
 */
const DEFAULT_IDLE_MS = 3_600_000;

const REPORT_TIMEOUT_MS = 1000;

/** Registers the traffic families in `registry`. */
export function createMetricsHub(options: MetricsHubOptions): MetricsHub {
  const { registry, threads, now = () => performance.now(), onError = () => {} } = options;
  const { idleMs = DEFAULT_IDLE_MS, reportMs = REPORT_TIMEOUT_MS } = options;
  const traffic = createTrafficStore(registry);
  const evicted = registry.counter(SERIES_EVICTED);
  /** What the values of a thread's reports stand for. */
  const slotsByThread = new Map<string, SlotDefinition[]>();
  const collecting = new Map<string, Promise<void>>();

  async function refresh(): Promise<void> {
    await Promise.all([...threads()].map((thread) => withinTime(collectOnce(thread), reportMs)));
    evicted.add(traffic.evict(now(), idleMs));
  }

  /** A thread that still owes a report is not asked again. */
  function collectOnce(thread: ReportingThread): Promise<void> {
    let pending = collecting.get(thread.name);
    if (pending === undefined) {
      pending = collect(thread).finally(() => collecting.delete(thread.name));
      collecting.set(thread.name, pending);
    }
    return pending;
  }

  async function collect(thread: ReportingThread): Promise<void> {
    const slots = slotsByThread.get(thread.name) ?? [];
    slotsByThread.set(thread.name, slots);
    try {
      const report = await thread.report();
      // Not when the thread was forgotten meanwhile.
      if (slotsByThread.get(thread.name) !== slots) return;
      traffic.merge(thread.name, report.traffic, now());
      slots.push(...report.slots);
      for (const [at, value] of report.values.entries()) mergeSlot(thread.name, slots[at]!, value);
    } catch (error) {
      onError(thread.name, error);
    }
  }

  function mergeSlot(thread: string, { family, labels }: SlotDefinition, value: number): void {
    if (family.type === 'counter') {
      registry.counter(family).add(value, ...labels);
    } else {
      registry.gauge(family).contribute(thread, value, ...labels);
    }
  }

  return {
    async scrape() {
      await refresh();
      return expose(registry);
    },
    refresh,
    forget(thread) {
      traffic.forget(thread);
      for (const { family, labels } of slotsByThread.get(thread) ?? []) {
        if (family.type === 'gauge') registry.gauge(family).contribute(thread, null, ...labels);
      }
      slotsByThread.delete(thread);
    },
  };
}

/** Settles when the work does, or when its time is over; the work goes on. */
function withinTime(work: Promise<void>, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = afterReading(ms, resolve);
    work.then(resolve, reject).finally(cancel);
  });
}

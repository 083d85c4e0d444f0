import { CulvertError } from '../errors.ts';
import type { Distribution, Family, Sample } from './family.ts';

/** All metrics of the process, in the order they were registered. Lives on the control thread. */
export interface Registry {
  /** The counter of a family; the same one for the same family. @throws CulvertError METRIC_INVALID */
  counter(family: Family): Counter;
  /** The gauge of a family; the same one for the same family. @throws CulvertError METRIC_INVALID */
  gauge(family: Family): Gauge;
  /** A new histogram. @throws CulvertError METRIC_INVALID */
  histogram(family: Family): Histogram;
  /** A family whose samples are computed when they are asked for. @throws CulvertError METRIC_INVALID */
  computed(family: Family, samples: () => Iterable<Sample>): void;
  /** A family that prints its own label text, for families too large for samples. @throws CulvertError METRIC_INVALID */
  rendered(family: Family, lines: () => Iterable<RenderedSample>): void;
  families(): Iterable<RegisteredFamily>;
}

export interface Counter {
  /** `labels` are values in the family's order. */
  add(amount: number, ...labels: string[]): void;
}

export interface Histogram {
  /** `labels` are values in the family's order. */
  observe(value: number, ...labels: string[]): void;
}

/** A sample is the sum of what its contributors say; the control thread is one, every reporting thread another. */
export interface Gauge {
  /** The control thread's own part. */
  set(value: number, ...labels: string[]): void;
  /** Another thread's part; null when the thread is gone. */
  contribute(thread: string, value: number | null, ...labels: string[]): void;
}

/** A sample whose labels are already text: `a="b",c="d"`, escaped. */
export interface RenderedSample {
  readonly labelText: string;
  readonly value: number;
}

export type RegisteredFamily =
  | { readonly kind: 'samples'; readonly family: Family; readonly samples: () => Iterable<Sample> }
  | { readonly kind: 'rendered'; readonly family: Family; readonly lines: () => Iterable<RenderedSample> }
  | { readonly kind: 'histogram'; readonly family: Family; readonly distributions: () => Iterable<Distribution> };

/** Metrics whose HELP need not say "unstable": dashboards rely on them (spec §12.3). */
const STABLE = /^(?:istio_build|istio_tcp_(?:connections_(?:opened|closed)|(?:received|sent)_bytes)|process_\w+)$/;

export function createRegistry(): Registry {
  const registered = new Map<string, RegisteredFamily>();
  const stores = new Map<string, SampleStore>();

  function register(entry: RegisteredFamily): void {
    checkFamily(entry.family);
    if (registered.has(entry.family.name)) throw invalid(entry.family, 'is registered twice');
    registered.set(entry.family.name, entry);
  }

  function storeOf(family: Family): SampleStore {
    let store = stores.get(family.name);
    if (store === undefined) {
      store = createSampleStore(family);
      register({ kind: 'samples', family, samples: store.samples });
      stores.set(family.name, store);
    } else if (store.type !== family.type || store.family.labels.join() !== family.labels.join()) {
      throw invalid(family, 'is registered with another type or other labels');
    }
    return store;
  }

  return {
    counter(family) {
      const store = storeOf(family);
      if (store.type === 'gauge') throw invalid(family, 'is no counter');
      return store;
    },
    gauge(family) {
      const store = storeOf(family);
      if (store.type !== 'gauge') throw invalid(family, 'is no gauge');
      return store;
    },
    histogram(family) {
      const { observe, distributions } = createHistogram(family);
      register({ kind: 'histogram', family, distributions });
      return { observe };
    },
    computed: (family, samples) => register({ kind: 'samples', family, samples }),
    rendered: (family, lines) => register({ kind: 'rendered', family, lines }),
    families: () => registered.values(),
  };
}

type SampleStore = (CounterStore | GaugeStore) & { readonly family: Family; samples(): Iterable<Sample> };
type CounterStore = Counter & { readonly type: 'counter' | 'unknown' };
type GaugeStore = Gauge & { readonly type: 'gauge' };

function createSampleStore(family: Family): SampleStore {
  const { type } = family;
  if (type === 'histogram') throw invalid(family, 'is a histogram');
  return type === 'gauge' ? createGaugeStore(family) : createCounterStore(family, type);
}

function createCounterStore(family: Family, type: CounterStore['type']): SampleStore {
  const samples = createLabelled(family, (labels) => ({ labels, value: 0 }));
  return {
    type,
    family,
    samples: samples.all,
    add(amount, ...labels) {
      samples.of(labels).value += amount;
    },
  };
}

/** Contributions are kept apart and summed when read, so that fractions leave no rest when a thread goes. */
function createGaugeStore(family: Family): SampleStore {
  const samples = createLabelled(family, (labels) => ({ labels, parts: new Map<string, number>() }));

  function contribute(thread: string, value: number | null, ...labels: string[]): void {
    const { parts } = samples.of(labels);
    if (value !== null) {
      parts.set(thread, value);
    } else if (parts.delete(thread) && parts.size === 0 && labels.length > 0) {
      samples.drop(labels);
    }
  }

  return {
    type: 'gauge',
    family,
    *samples() {
      for (const { labels, parts } of samples.all()) {
        let value = 0;
        for (const part of parts.values()) value += part;
        yield { labels, value };
      }
    },
    set: (value, ...labels) => contribute(CONTROL_THREAD, value, ...labels),
    contribute,
  };
}

const CONTROL_THREAD = '';

function createHistogram(family: Family): Histogram & { distributions(): Iterable<Distribution> } {
  const { type, buckets = [] } = family;
  if (type !== 'histogram') throw invalid(family, 'is no histogram');
  if (buckets.length === 0 || buckets.some((bound, at) => at > 0 && bound <= buckets[at - 1]!)) {
    throw invalid(family, 'needs buckets with rising bounds');
  }
  const samples = createLabelled(family, (labels) => ({
    labels,
    counts: Array<number>(buckets.length + 1).fill(0),
    sum: 0,
  }));
  return {
    observe(value, ...labels) {
      const sample = samples.of(labels);
      const bucket = buckets.findIndex((bound) => value <= bound);
      sample.counts[bucket < 0 ? buckets.length : bucket]!++;
      sample.sum += value;
    },
    distributions: samples.all,
  };
}

/** One item per label set. */
function createLabelled<T>(family: Family, create: (labels: string[]) => T) {
  const byLabels = new Map<string, T>();
  // A family without labels has its one sample from the start, so that a counter is seen to go from 0 to 1.
  if (family.labels.length === 0) byLabels.set('', create([]));
  return {
    of(labels: string[]): T {
      const key = labels.join('\0');
      let item = byLabels.get(key);
      if (item === undefined) {
        if (labels.length !== family.labels.length) throw invalid(family, `has the labels ${family.labels.join(', ')}`);
        item = create(labels);
        byLabels.set(key, item);
      }
      return item;
    },
    drop: (labels: string[]) => byLabels.delete(labels.join('\0')),
    all: () => byLabels.values(),
  };
}

function checkFamily(family: Family): void {
  if (!/^[a-z][a-z0-9_]*$/.test(family.name)) throw invalid(family, 'is no metric name');
  if (family.name.endsWith('_total')) throw invalid(family, 'must not end in _total');
  if (!family.labels.every((label) => /^[a-z][a-z0-9_]*$/.test(label))) throw invalid(family, 'has a bad label name');
  if (family.unit !== undefined && !family.name.endsWith(`_${family.unit}`))
    throw invalid(family, 'must end in its unit');
  if (!STABLE.test(family.name) && !family.help.includes('unstable')) throw invalid(family, 'must be called unstable');
}

function invalid(family: Family, what: string): CulvertError {
  return new CulvertError('METRIC_INVALID', `metric ${family.name} ${what}`);
}

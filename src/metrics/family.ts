/** What a metric is: its name, kind, meaning and labels. Plain data: workers name the families of their counters by it. */
export interface Family {
  /** Without the suffix `_total`, which the exposition adds to counters. */
  readonly name: string;
  /** `unknown` is a counter whose name somebody gave without that suffix: OpenMetrics knows no counter without it. */
  readonly type: 'counter' | 'gauge' | 'unknown' | 'histogram';
  /** Printed as it is. Holds the word "unstable" unless the metric belongs to the incumbent's core set (spec §12.3). */
  readonly help: string;
  readonly labels: readonly string[];
  /** Last part of the name (OpenMetrics 1.0 § "Unit"). */
  readonly unit?: string;
  /** Upper bounds of a histogram's buckets, rising. */
  readonly buckets?: readonly number[];
}

export interface Sample {
  /** One for each label of the family; '' is printed as `unknown`. */
  readonly labels: readonly string[];
  readonly value: number;
}

/** What one label set of a histogram has seen. */
export interface Distribution {
  readonly labels: readonly string[];
  /** How many observations fell in each bucket, and in none of them at the end; not cumulated. */
  readonly counts: readonly number[];
  readonly sum: number;
}

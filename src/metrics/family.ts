/** What a metric is: its name, kind, meaning and labels. Plain data: workers name the families of their counters by it. */
export interface Family {
  /** Without the suffix `_total`, which the exposition adds to counters. */
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  /** Printed as it is. Holds the word "unstable" unless the metric belongs to the incumbent's core set (spec §12.3). */
  readonly help: string;
  readonly labels: readonly string[];
  /** Last part of the name (OpenMetrics 1.0 § "Unit"). */
  readonly unit?: string;
}

export interface Sample {
  /** One for each label of the family; '' is printed as `unknown`. */
  readonly labels: readonly string[];
  readonly value: number;
}

/** Reads a metrics page (OpenMetrics text) back. */

export interface Sample {
  readonly name: string;
  /** In the order of the page. */
  readonly labels: readonly (readonly [name: string, value: string])[];
  readonly value: number;
}

export function readSamples(page: string): Sample[] {
  return page
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [, name, labels, value] = /^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (name === undefined) throw new Error(`not a sample: ${line}`);
      return {
        name,
        labels: [...(labels ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(
          ([, key, text]) => [key!, text!] as const,
        ),
        value: Number(value),
      };
    });
}

/** The sum of all samples of a metric whose labels have these values. */
export function total(samples: readonly Sample[], name: string, wanted: Readonly<Record<string, string>> = {}): number {
  return matching(samples, name, wanted).reduce((sum, { value }) => sum + value, 0);
}

export function matching(
  samples: readonly Sample[],
  name: string,
  wanted: Readonly<Record<string, string>> = {},
): Sample[] {
  return samples.filter((sample) => {
    if (sample.name !== name) return false;
    const labels = new Map(sample.labels);
    return Object.entries(wanted).every(([key, value]) => labels.get(key) === value);
  });
}

/** The middle value; the mean of the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** A bound for a figure: at least, or at most, so much. */
export type Bound = { atLeast: number } | { atMost: number } | null;

/** One line of the table. */
export interface Figure {
  /** The benchmark and the load, such as `relay, 64 connections`. */
  what: string;
  /** The measured values in the order they are read, such as `culvert 60100/s`. */
  measured: string;
  /** The number that the bound is about, and how it is printed. */
  value: number;
  printed: string;
  bound: Bound;
}

export function meets(value: number, bound: Bound): boolean {
  if (bound === null) return true;
  return 'atLeast' in bound ? value >= bound.atLeast : value <= bound.atMost;
}

/** The table of all figures, as plain text that is also Markdown. */
export function formatTable(figures: readonly Figure[]): string {
  const header = ['what', 'measured', 'figure', 'wanted', ''];
  const rows = figures.map((figure) => [
    figure.what,
    figure.measured,
    figure.printed,
    formatBound(figure.bound),
    figure.bound === null ? '' : meets(figure.value, figure.bound) ? 'ok' : 'MISSED',
  ]);
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [line(header), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

function formatBound(bound: Bound): string {
  if (bound === null) return '';
  return 'atLeast' in bound ? `≥ ${bound.atLeast}` : `≤ ${bound.atMost}`;
}

/** 61234 → `61.2k`, 940 → `940`. */
export function thousands(value: number): string {
  return value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(0);
}

/** Bytes per second as Gbit/s. */
export function gigabits(bytesPerSecond: number): string {
  return `${((bytesPerSecond * 8) / 1e9).toFixed(2)} Gbit/s`;
}

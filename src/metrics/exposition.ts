/**
 * Metrics as OpenMetrics 1.0 text, in the shape of the incumbent's (spec §12.1): families without samples left out, TYPE
 * and HELP of counters without `_total`, UNIT where there is one, `# EOF` at the end.
 *
 * prom-client is not used: it writes neither UNIT lines nor leaves out empty families, and costs 11 MB resident (it loads https, zlib and its cluster support).
 */
import type { Distribution, Family, Sample } from './family.ts';
import type { RegisteredFamily, Registry } from './registry.ts';

/** Piece by piece, so that a large exposition neither blocks the loop nor is ever whole in memory. */
const CHUNK_CHARACTERS = 32 * 1024;

/** The exposition in chunks of about 32 KiB. Values are read when their chunk is. */
export function* expose(registry: Registry): Generator<string, void, void> {
  let chunk = '';
  for (const entry of registry.families()) {
    const { family } = entry;
    const name = family.type === 'counter' ? `${family.name}_total` : family.name;
    let head = headOf(family);
    for (const line of linesOf(entry)) {
      chunk += `${head}${name}${line}`;
      head = '';
      if (chunk.length >= CHUNK_CHARACTERS) {
        yield chunk;
        chunk = '';
      }
    }
  }
  yield `${chunk}# EOF\n`;
}

/** `a="b",c="d"` for as many names as there are values; an empty value is printed as `unknown`. */
export function labelText(names: readonly string[], values: readonly string[]): string {
  let text = '';
  for (let at = 0; at < values.length; at++) text += `${at === 0 ? '' : ','}${names[at]}="${labelValue(values[at]!)}"`;
  return text;
}

function labelValue(value: string): string {
  return value === '' ? 'unknown' : SPECIAL.test(value) ? value.replace(/[\\"\n]/g, escapeCharacter) : value;
}

const SPECIAL = /[\\"\n]/;

function escapeCharacter(character: string): string {
  return character === '\n' ? '\\n' : `\\${character}`;
}

function headOf({ name, type, help, unit }: Family): string {
  const head = `# HELP ${name} ${help.replace(/[\\"\n]/g, escapeCharacter)}\n# TYPE ${name} ${type}\n`;
  return unit === undefined ? head : `${head}# UNIT ${name} ${unit}\n`;
}

/** What follows the name on each line of a family. */
function* linesOf(entry: RegisteredFamily): Generator<string> {
  if (entry.kind === 'rendered') {
    for (const { labelText, value } of entry.lines()) yield `{${labelText}} ${numberText(value)}\n`;
    return;
  }
  if (entry.kind === 'histogram') {
    for (const distribution of entry.distributions()) yield* histogramLines(entry.family, distribution);
    return;
  }
  for (const sample of entry.samples()) yield `${labelsOf(entry.family, sample)} ${numberText(sample.value)}\n`;
}

/** Buckets count everything up to their bound (OpenMetrics 1.0 § "Histogram"). */
function* histogramLines(family: Family, sample: Distribution): Generator<string> {
  const labels = labelText(family.labels, sample.labels);
  let count = 0;
  for (const [at, inBucket] of sample.counts.entries()) {
    count += inBucket;
    const bound = numberText(family.buckets?.[at] ?? Number.POSITIVE_INFINITY);
    yield `_bucket{${labels === '' ? '' : `${labels},`}le="${bound}"} ${count}\n`;
  }
  const all = labelsOf(family, sample);
  yield `_sum${all} ${numberText(sample.sum)}\n`;
  yield `_count${all} ${count}\n`;
}

function labelsOf(family: Family, sample: Pick<Sample, 'labels'>): string {
  return family.labels.length === 0 ? '' : `{${labelText(family.labels, sample.labels)}}`;
}

/** A float as OpenMetrics writes it. */
function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}

import { CulvertError } from '../errors.ts';

/** Most severe first. */
export const LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type Level = (typeof LEVELS)[number];

/** Which events are logged: a level for everything and levels for targets that start with a prefix. Immutable. */
export interface LevelFilter {
  readonly directives: readonly Directive[];
}

interface Directive {
  /** Prefix of the targets this is about; '' for all. */
  readonly target: string;
  readonly threshold: Threshold;
}

type Threshold = 'off' | Level;

const OFF: LevelFilter = { directives: [] };

/**
 * Adds `level` and `target=level` directives (a comma list, spec §13.5) to a filter; a directive replaces an earlier one
 * for the same target. A bare target is refused, because it is more often a misspelt level than a wish for everything.
 * @throws CulvertError LOG_LEVEL_INVALID naming the part that was not understood
 */
export function extendFilter(filter: LevelFilter, spec: string): LevelFilter {
  const byTarget = new Map(filter.directives.map((directive) => [directive.target, directive]));
  for (const part of spec.split(',')) {
    const directive = parseDirective(part.trim());
    byTarget.set(directive.target, directive);
  }
  // The longest prefix is looked at first, so the most specific directive decides.
  return { directives: [...byTarget.values()].sort((a, b) => b.target.length - a.target.length) };
}

/** Reads a whole filter. @throws CulvertError LOG_LEVEL_INVALID */
export function parseFilter(spec: string): LevelFilter {
  return extendFilter(OFF, spec);
}

/** The text that parseFilter turns into the same filter. */
export function formatFilter(filter: LevelFilter): string {
  if (filter.directives.length === 0) return 'off';
  return filter.directives.map(({ target, threshold }) => (target ? `${target}=${threshold}` : threshold)).join(',');
}

/** How many of LEVELS are logged for a target, from the first: 0 (none) to 5 (down to trace). */
export function levelsLogged(filter: LevelFilter, target: string): number {
  const directive = filter.directives.find((candidate) => target.startsWith(candidate.target));
  return directive === undefined || directive.threshold === 'off' ? 0 : LEVELS.indexOf(directive.threshold) + 1;
}

function parseDirective(text: string): Directive {
  const equals = text.lastIndexOf('=');
  const threshold = asThreshold(text.slice(equals + 1));
  const target = equals < 0 ? '' : text.slice(0, equals);
  if (threshold === null || (equals >= 0 && !/^[\w:./-]+$/.test(target))) {
    throw new CulvertError(
      'LOG_LEVEL_INVALID',
      `"${text}" is neither a level (off, ${LEVELS.join(', ')}) nor target=level`,
    );
  }
  // Filters written for the incumbent name its crate first; its targets are ours otherwise.
  return { target: target === 'ztunnel' ? '' : target.replace(/^ztunnel::/, ''), threshold };
}

function asThreshold(text: string): Threshold | null {
  const lower = text.toLowerCase();
  if (lower === 'off') return 'off';
  return LEVELS.find((level) => level === lower) ?? null;
}

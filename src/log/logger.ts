import { ACCESS_TARGET, type AccessRecord, accessLevel, formatAccess } from './access.ts';
import { formatFilter, LEVELS, type Level, type LevelFilter, levelsLogged, parseFilter } from './level-filter.ts';
import { type Fields, formatEvent, type LogFormat, type Span } from './line.ts';
import { formatTimestamp, nowMicros } from './timestamp.ts';

/**
 * The log of one thread. Targets name the part that speaks, with `::` between the steps: `zds`, `proxy::inbound`; they
 * are what `RUST_LOG` selects. The message says what happened; fields say to whom, in the order given.
 */
export interface Logger {
  error(target: string, message: string, fields?: Fields): void;
  warn(target: string, message: string, fields?: Fields): void;
  info(target: string, message: string, fields?: Fields): void;
  debug(target: string, message: string, fields?: Fields): void;
  trace(target: string, message: string, fields?: Fields): void;
  /** Writes the access line of a connection if target `access` is logged at that record's level. */
  access(record: AccessRecord): void;
  /** Whether an event would be written; ask before computing what only the log needs. */
  logs(level: Level, target: string): boolean;
  /** The same log for events within something: a session, a pod. */
  within(name: string, fields: Fields): Logger;
  /** The filter in force, as text. */
  level(): string;
  /** Replaces the filter of this logger and of all made from it. @throws CulvertError LOG_LEVEL_INVALID */
  setLevel(spec: string): void;
}

export interface LoggerOptions {
  format: LogFormat;
  /** `level` and `target=level`, comma separated (spec §13.5) */
  level: string;
  /** Takes a finished line with its line feed; `createLineWriter().write` for stdout. */
  write: (line: string) => void;
  /** Whole microseconds since 1970. */
  now?: () => number;
}

/** @throws CulvertError LOG_LEVEL_INVALID */
export function createLogger(options: LoggerOptions): Logger {
  const now = options.now ?? nowMicros;
  const { format, write } = options;
  const gate = createGate(parseFilter(options.level));
  return loggerWithin([]);

  function loggerWithin(spans: readonly Span[]): Logger {
    function event(level: Level, target: string, message: string, fields: Fields): void {
      if (gate.logs(level, target)) {
        write(formatEvent({ level, target, message, fields, spans }, formatTimestamp(now()), format));
      }
    }
    return {
      error: (target, message, fields = {}) => event('error', target, message, fields),
      warn: (target, message, fields = {}) => event('warn', target, message, fields),
      info: (target, message, fields = {}) => event('info', target, message, fields),
      debug: (target, message, fields = {}) => event('debug', target, message, fields),
      trace: (target, message, fields = {}) => event('trace', target, message, fields),
      access(record) {
        if (gate.logs(accessLevel(record), ACCESS_TARGET)) write(formatAccess(record, formatTimestamp(now()), format));
      },
      logs: gate.logs,
      within: (name, fields) => loggerWithin([...spans, { name, fields }]),
      level: () => formatFilter(gate.filter()),
      setLevel: (spec) => gate.set(parseFilter(spec)),
    };
  }
}

const SEVERITY: Readonly<Record<Level, number>> = Object.fromEntries(
  LEVELS.map((level, index) => [level, index]),
) as Record<Level, number>;

/** Decides by a filter, and remembers the decision for each target: targets are few, events are many. */
function createGate(initial: LevelFilter) {
  let filter = initial;
  const logged = new Map<string, number>();
  return {
    filter: () => filter,
    set(next: LevelFilter): void {
      filter = next;
      logged.clear();
    },
    logs(level: Level, target: string): boolean {
      let levels = logged.get(target);
      if (levels === undefined) {
        levels = levelsLogged(filter, target);
        logged.set(target, levels);
      }
      return SEVERITY[level] < levels;
    },
  };
}

import { EARLY_DENIES, FILTER_VERDICTS } from '../metrics/families.ts';
import type { Slot, ThreadMetrics } from '../metrics/thread-metrics.ts';
import type { ConnectionContext, ListenerName, ProxiedConnection } from './connection.ts';
import { CONTINUE, PENDING, type Refusal, type Verdict } from './verdict.ts';

/** One step of a listener. Filters hold no state of a connection; what they find out stands on the connection. */
export interface Filter<C extends ProxiedConnection> {
  readonly name: string;
  /** Judges the connection. After `PENDING` it is asked again as soon as the connection proceeds. */
  check(connection: C): Verdict;
  /** The connection's context is known: it counts from here on. */
  opened?(connection: C): void;
  /** It goes to another endpoint than `before` said, which could not be reached. */
  moved?(connection: C, before: ConnectionContext): void;
  /** The connection is over; `refusal` is null when all went well. */
  completed?(connection: C, refusal: Refusal | null): void;
}

/** The filters of one listener, in order, with their counters. */
export class FilterChain<C extends ProxiedConnection> {
  readonly listener: ListenerName;
  readonly names: readonly string[];
  readonly #filters: readonly Filter<C>[];
  readonly #metrics: ThreadMetrics;
  readonly #passed: readonly Slot[];
  readonly #reporter: 'source' | 'destination';

  constructor(listener: ListenerName, filters: readonly Filter<C>[], metrics: ThreadMetrics) {
    this.listener = listener;
    this.names = filters.map(({ name }) => name);
    this.#filters = filters;
    this.#metrics = metrics;
    this.#passed = filters.map(({ name }) => metrics.slot(FILTER_VERDICTS, listener, name, 'continue'));
    this.#reporter = listener === 'outbound' ? 'source' : 'destination';
  }

  /** Asks the filters from where the connection stands. */
  run(connection: C): Verdict {
    while (connection.filterIndex < this.#filters.length) {
      const index = connection.filterIndex;
      const filter = this.#filters[index]!;
      const known = connection.context !== null;
      const verdict = filter.check(connection);
      if (!known && connection.context !== null) this.opened(connection);
      if (verdict === PENDING) return PENDING;
      if (verdict !== CONTINUE) {
        this.#metrics.add(this.#metrics.slot(FILTER_VERDICTS, this.listener, filter.name, verdict.kind), 1);
        return verdict;
      }
      this.#metrics.add(this.#passed[index]!, 1);
      connection.filterIndex++;
    }
    return CONTINUE;
  }

  /** The context is known: by a filter, or later when only the far end's answer tells it. */
  opened(connection: C): void {
    for (const filter of this.#filters) filter.opened?.(connection);
  }

  moved(connection: C, before: ConnectionContext): void {
    for (const filter of this.#filters) filter.moved?.(connection, before);
  }

  completed(connection: C, refusal: Refusal | null): void {
    // Refused before anything was known: no traffic metric shows it (spec §12.2), so it is counted here.
    if (connection.context === null && refusal !== null) {
      this.#metrics.add(this.#metrics.slot(EARLY_DENIES, this.#reporter, refusal.reason), 1);
    }
    for (const filter of this.#filters) filter.completed?.(connection, refusal);
  }
}

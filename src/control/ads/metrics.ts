/** Metrics of the delta ADS server: istiod's names where it has them. */
import type { Family } from '../../metrics/family.ts';
import type { Counter, Histogram, Registry } from '../../metrics/registry.ts';

/** Of istiod's histograms of delays, in seconds. */
const SECONDS = [0.1, 0.5, 1, 3, 5, 10, 20, 30];

const FAMILIES = {
  clients: family('pilot_xds', 'gauge', 'Node proxies that are connected, by their version (unstable).', ['version']),
  pushes: family('pilot_xds_pushes', 'unknown', 'Responses sent to node proxies (unstable).', ['type']),
  rejects: family('pilot_total_xds_rejects', 'unknown', 'Responses that node proxies rejected (unstable).', ['type']),
  expiredNonces: family('pilot_xds_expired_nonce', 'unknown', 'Requests that answer an older response (unstable).', [
    'type',
  ]),
  writeTimeouts: family('pilot_xds_write_timeout', 'unknown', 'Clients cut off as they take nothing (unstable).'),
  refused: family('culvert_control_xds_refused', 'counter', 'Streams that were refused, by gRPC status (unstable).', [
    'reason',
  ]),
  convergence: family(
    'pilot_proxy_convergence_time',
    'histogram',
    'Seconds from a change until a node proxy has acknowledged it (unstable).',
    [],
    SECONDS,
  ),
  debounce: family(
    'pilot_debounce_time',
    'histogram',
    'Seconds for which changes were collected before they were sent (unstable).',
    [],
    [0.01, ...SECONDS],
  ),
  size: family(
    'pilot_xds_config_size_bytes',
    'histogram',
    'Size of responses (unstable).',
    ['type'],
    [1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000],
  ),
  waiting: family('culvert_control_xds_unacknowledged', 'gauge', 'Responses without an answer so far (unstable).', [
    'type',
  ]),
} as const;

export interface AdsMetrics {
  readonly pushes: Counter;
  readonly rejects: Counter;
  readonly expiredNonces: Counter;
  readonly writeTimeouts: Counter;
  readonly refused: Counter;
  readonly convergence: Histogram;
  readonly debounce: Histogram;
  readonly size: Histogram;
}

/** What is counted when it is asked for. */
export interface Counted {
  /** Version of each client that is connected. */
  versions(): Iterable<string>;
  /** Metric name of the type of each response without an answer. */
  unacknowledged(): Iterable<string>;
}

export function registerAdsMetrics(registry: Registry, counted: Counted): AdsMetrics {
  const tally = (values: Iterable<string>) => {
    const counts = new Map<string, number>();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return [...counts].map(([label, value]) => ({ labels: [label], value }));
  };
  registry.computed(FAMILIES.clients, () => tally(counted.versions()));
  registry.computed(FAMILIES.waiting, () => tally(counted.unacknowledged()));
  return {
    pushes: registry.counter(FAMILIES.pushes),
    rejects: registry.counter(FAMILIES.rejects),
    expiredNonces: registry.counter(FAMILIES.expiredNonces),
    writeTimeouts: registry.counter(FAMILIES.writeTimeouts),
    refused: registry.counter(FAMILIES.refused),
    convergence: registry.histogram(FAMILIES.convergence),
    debounce: registry.histogram(FAMILIES.debounce),
    size: registry.histogram(FAMILIES.size),
  };
}

function family(
  name: string,
  type: Family['type'],
  help: string,
  labels: readonly string[] = [],
  buckets?: readonly number[],
): Family {
  return { name, type, help, labels, ...(buckets === undefined ? {} : { buckets }) };
}

// Hot path: one pick per connection.
import type { EndpointSet } from './endpoint-set.ts';
import type { PlannedEndpoint } from './plan.ts';

export interface BalancerOptions {
  /** How long an endpoint is left out after its first failure, in ms; doubles with each further one. */
  readonly ejectionTime: number;
  /** Longest ejection, in ms. */
  readonly maxEjectionTime: number;
  /** Share of a service's farthest endpoints that may be left out at a time, 0..100; 0 ejects none, near ones neither. */
  readonly maxEjectedPercent: number;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Told of each failure: whether the endpoint is left out now, or is not for the sake of the others. */
  readonly onFailure: (result: 'ejected' | 'spared') => void;
}

/** What is known of an endpoint that has connections or has failed. */
export interface EndpointHealth {
  readonly endpoint: string;
  /** uid of its workload when it last failed. */
  readonly uid: string;
  readonly connections: number;
  /** In a row. */
  readonly failures: number;
  /** In ms; 0 when it is in use. */
  readonly ejectedFor: number;
}

/**
 * Chooses endpoints for the connections of one pod: of the nearest that can be used, by weight, the less busy of two (power
 * of two choices), leaving out for a while those that failed.
 *
 * Each pod judges for itself: what one pod cannot reach, by its identity or a network policy, others may.
 */
export class Balancer {
  readonly #options: BalancerOptions;
  readonly #states = new Map<string, EndpointState>();
  /** What is left out, by service and tier. Entries whose time has passed may linger until the next look. */
  readonly #ejected = new Map<string, Map<string, EndpointState>>();

  constructor(options: BalancerOptions) {
    this.#options = options;
  }

  /** Endpoints that something is known of. */
  get size(): number {
    return this.#states.size;
  }

  /**
   * An endpoint for a connection; null when it has tried them all.
   *
   * @param tried health keys of those that have failed this connection
   * @param from the tier to look in first, then in the farther ones, then in the nearer ones
   */
  pick(set: EndpointSet, tried: ReadonlySet<string> | null, from = 0): PlannedEndpoint | null {
    if (set.size === 1) {
      const only = set.at(0);
      return tried?.has(only.healthKey) ? null : only;
    }
    const { now, random } = this.#options;
    if (this.#states.size === 0 && tried === null) return set.at(set.indexAt(random(), from));
    const time = now();
    for (let step = 0; step < set.tiers; step++) {
      const tier = (from + step) % set.tiers;
      const first = this.#draw(set, tier, tried, time);
      if (first === null) continue;
      const second = this.#draw(set, tier, tried, time)!;
      return this.#load(second) < this.#load(first) ? second : first;
    }
    // When all that are left are ejected, a chance is better than none.
    for (let step = 0; step < set.tiers; step++) {
      const untried = scan(set, (from + step) % set.tiers, random(), ({ healthKey }) => tried?.has(healthKey) !== true);
      if (untried !== null) return untried;
    }
    return null;
  }

  /** A connection uses the endpoint, until `left`. */
  joined(endpoint: PlannedEndpoint): void {
    this.#stateOf(endpoint).connections++;
  }

  left(endpoint: PlannedEndpoint): void {
    const state = this.#states.get(endpoint.healthKey);
    if (state === undefined) return;
    state.connections--;
    this.#dropIfIdle(endpoint.healthKey, state);
  }

  succeeded({ healthKey }: PlannedEndpoint): void {
    const state = this.#states.get(healthKey);
    if (state === undefined || state.failures === 0) return;
    state.failures = 0;
    state.ejectedUntil = 0;
    this.#dropIfIdle(healthKey, state);
  }

  /**
   * The endpoint could not be reached. It is left out for a growing time, unless it is one of the farthest of the service and
   * too many of those are out already: a nearer tier may be out as a whole, as the next one takes over.
   *
   * @param service names what the set belongs to
   * @param since when the attempt began: what began before the last ejection says nothing new
   */
  failed(service: string, set: EndpointSet, endpoint: PlannedEndpoint, since: number): void {
    const { now, random, ejectionTime, maxEjectionTime, maxEjectedPercent, onFailure } = this.#options;
    // Where there is no choice nothing is remembered: a pod may try any number of addresses.
    if (set.size === 1) {
      onFailure('spared');
      return;
    }
    const time = now();
    const state = this.#stateOf(endpoint);
    if (since < state.ejectedAt) return;
    // What failed long ago may have been mended since.
    if (time - state.failedAt > 2 * maxEjectionTime) state.failures = 0;
    state.failedAt = time;
    state.uid = endpoint.uid;
    state.failures++;
    const together = `${service} ${endpoint.tier}`;
    const ejected = this.#ejectedOf(together, time);
    const tier = set.tierOf(endpoint);
    const size = set.endOf(tier) - set.startOf(tier);
    const share = Math.min(size - 1, Math.max(1, Math.floor((size * maxEjectedPercent) / 100)));
    const allowed = tier < set.tiers - 1 ? size : share;
    if (maxEjectedPercent === 0 || (ejected.size >= allowed && !ejected.has(endpoint.healthKey))) {
      onFailure('spared');
      return;
    }
    const growing = Math.min(maxEjectionTime, ejectionTime * 2 ** (state.failures - 1));
    state.ejectedAt = time;
    // Not all threads and pods come back to it at the same moment.
    state.ejectedUntil = time + growing * (0.75 + random() / 2);
    ejected.set(endpoint.healthKey, state);
    this.#ejected.set(together, ejected);
    onFailure('ejected');
  }

  /** Forgets failures that are long past. Called every few seconds. */
  tick(): void {
    const time = this.#options.now();
    for (const together of [...this.#ejected.keys()]) this.#ejectedOf(together, time);
    for (const [key, state] of this.#states) {
      if (state.failures > 0 && time - state.failedAt > 2 * this.#options.maxEjectionTime) {
        state.failures = 0;
        this.#dropIfIdle(key, state);
      }
    }
  }

  /** Every endpoint among several that has failed and not been reached since. */
  unhealthy(): EndpointHealth[] {
    const time = this.#options.now();
    return [...this.#states]
      .filter(([, { failures }]) => failures > 0)
      .map(([endpoint, { uid, connections, failures, ejectedUntil }]) => ({
        endpoint,
        uid,
        connections,
        failures,
        ejectedFor: Math.max(0, Math.round(ejectedUntil - time)),
      }));
  }

  /** How many are left out now. */
  get ejectedCount(): number {
    const time = this.#options.now();
    let count = 0;
    for (const states of this.#ejected.values()) {
      for (const { ejectedUntil } of states.values()) if (ejectedUntil > time) count++;
    }
    return count;
  }

  /** One of the tier that may be used, by weight; null when there is none. */
  #draw(set: EndpointSet, tier: number, tried: ReadonlySet<string> | null, time: number): PlannedEndpoint | null {
    const { random } = this.#options;
    const usable = (endpoint: PlannedEndpoint) => {
      if (tried?.has(endpoint.healthKey)) return false;
      const state = this.#states.get(endpoint.healthKey);
      return state === undefined || state.ejectedUntil <= time;
    };
    for (let draw = 0; draw < DRAWS; draw++) {
      const endpoint = set.at(set.indexAt(random(), tier));
      if (usable(endpoint)) return endpoint;
    }
    return scan(set, tier, random(), usable);
  }

  /** Connections per weight. */
  #load(endpoint: PlannedEndpoint): number {
    const state = this.#states.get(endpoint.healthKey);
    return state === undefined ? 0 : state.connections / endpoint.weight;
  }

  #stateOf({ healthKey, uid }: PlannedEndpoint): EndpointState {
    let state = this.#states.get(healthKey);
    if (state === undefined) {
      state = { uid, connections: 0, failures: 0, failedAt: 0, ejectedAt: 0, ejectedUntil: 0 };
      this.#states.set(healthKey, state);
    }
    return state;
  }

  #dropIfIdle(key: string, state: EndpointState): void {
    if (state.connections === 0 && state.failures === 0) this.#states.delete(key);
  }

  #ejectedOf(together: string, time: number): Map<string, EndpointState> {
    const ejected = this.#ejected.get(together) ?? new Map<string, EndpointState>();
    for (const [key, { ejectedUntil }] of ejected) if (ejectedUntil <= time) ejected.delete(key);
    if (ejected.size === 0) this.#ejected.delete(together);
    return ejected;
  }
}

interface EndpointState {
  uid: string;
  connections: number;
  failures: number;
  failedAt: number;
  ejectedAt: number;
  ejectedUntil: number;
}

/** With half of the endpoints out, fewer than one pick in a hundred has to look at them one by one. */
const DRAWS = 8;

/** The first of the tier that suits, from a random place on. */
function scan(
  set: EndpointSet,
  tier: number,
  draw: number,
  suits: (endpoint: PlannedEndpoint) => boolean,
): PlannedEndpoint | null {
  const [first, end] = [set.startOf(tier), set.endOf(tier)];
  const start = set.indexAt(draw, tier);
  for (let index = start; index < end; index++) {
    const endpoint = set.at(index);
    if (suits(endpoint)) return endpoint;
  }
  for (let index = first; index < start; index++) {
    const endpoint = set.at(index);
    if (suits(endpoint)) return endpoint;
  }
  return null;
}

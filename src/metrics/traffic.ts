/**
 * Traffic counters of one data-plane thread: numbers behind an integer handle. Hot path: `received` and `sent` are one
 * array access; labels are looked at once per connection. Needs no metrics library and no registry.
 */
import { RESPONSE_FLAGS, type ResponseFlag, seriesKey, type TrafficLabels } from './traffic-labels.ts';

/** Stands for a label set. Valid from `open` to `close`. */
export type TrafficHandle = number;

export interface TrafficCounters {
  /** Counts a connection as opened and keeps its label set alive until `close`. */
  open(labels: TrafficLabels): TrafficHandle;
  /** Bytes from client to server, on either side of the tunnel. */
  received(handle: TrafficHandle, bytes: number): void;
  /** Bytes from server to client. */
  sent(handle: TrafficHandle, bytes: number): void;
  /** Counts the connection as closed, and as failed when the flag is not `-`. Exactly once for each `open`. */
  close(handle: TrafficHandle, flag: ResponseFlag): void;
  /** What was counted since the last report; label sets that no connection uses are then forgotten here. */
  report(): TrafficReport;
}

/** Structured-clonable. The three arrays run in parallel: one entry for each label set, TRAFFIC_STRIDE values per entry. */
export interface TrafficReport {
  /** Label sets that were not in an earlier report, by id. An id is used again only after its set was reported unused. */
  readonly defined: readonly (readonly [id: number, key: string])[];
  readonly ids: Uint32Array<ArrayBuffer>;
  /** Connections that use the label set now. */
  readonly live: Uint32Array<ArrayBuffer>;
  /** Increments. */
  readonly values: Float64Array<ArrayBuffer>;
}

export const OPENED = 0;
export const RECEIVED = 1;
export const SENT = 2;
/** Closed connections by flag, in the order of RESPONSE_FLAGS. A failed one is a closed one with another flag than `-`. */
export const CLOSED = 3;
export const TRAFFIC_STRIDE = CLOSED + RESPONSE_FLAGS.length;

const FLAG_OFFSET = Object.fromEntries(RESPONSE_FLAGS.map((flag, at) => [flag, CLOSED + at])) as Record<
  ResponseFlag,
  number
>;

const INITIAL_SERIES = 64;

export function createTrafficCounters(): TrafficCounters {
  const idByKey = new Map<string, number>();
  const keys: (string | null)[] = [];
  const free: number[] = [];
  let undefinedIds: number[] = [];
  let live = new Uint32Array(INITIAL_SERIES);
  let values = new Float64Array(INITIAL_SERIES * TRAFFIC_STRIDE);

  function define(key: string): number {
    const id = free.pop() ?? keys.length;
    if (id === live.length) {
      live = grown(live, new Uint32Array(2 * live.length));
      values = grown(values, new Float64Array(2 * values.length));
    }
    keys[id] = key;
    idByKey.set(key, id);
    undefinedIds.push(id);
    return id;
  }

  function report(): TrafficReport {
    const count = idByKey.size;
    const taken = {
      defined: undefinedIds.map((id) => [id, keys[id]!] as const),
      ids: new Uint32Array(count),
      live: new Uint32Array(count),
      values: new Float64Array(count * TRAFFIC_STRIDE),
    };
    undefinedIds = [];
    let at = 0;
    for (const [key, id] of idByKey) {
      const start = id * TRAFFIC_STRIDE;
      taken.ids[at] = id;
      taken.live[at] = live[id]!;
      taken.values.set(values.subarray(start, start + TRAFFIC_STRIDE), at * TRAFFIC_STRIDE);
      values.fill(0, start, start + TRAFFIC_STRIDE);
      at++;
      if (live[id] === 0) {
        idByKey.delete(key);
        keys[id] = null;
        free.push(id);
      }
    }
    return taken;
  }

  return {
    open(labels) {
      const key = seriesKey(labels);
      const id = idByKey.get(key) ?? define(key);
      live[id]!++;
      values[id * TRAFFIC_STRIDE + OPENED]!++;
      return id;
    },
    received(handle, bytes) {
      values[handle * TRAFFIC_STRIDE + RECEIVED]! += bytes;
    },
    sent(handle, bytes) {
      values[handle * TRAFFIC_STRIDE + SENT]! += bytes;
    },
    close(handle, flag) {
      values[handle * TRAFFIC_STRIDE + FLAG_OFFSET[flag]]!++;
      live[handle]!--;
    },
    report,
  };
}

function grown<T extends Uint32Array<ArrayBuffer> | Float64Array<ArrayBuffer>>(old: T, larger: T): T {
  larger.set(old);
  return larger;
}

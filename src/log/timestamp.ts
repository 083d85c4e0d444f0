import { performance } from 'node:perf_hooks';

/** The clock may be set (NTP); beyond this difference the reading starts from the system clock again. */
const MAX_DRIFT_MS = 2;

let origin = performance.timeOrigin;

/** The time in whole microseconds since 1970. `Date.now()` alone has milliseconds, which do not order log lines. */
export function nowMicros(): number {
  const sinceOrigin = performance.now();
  const system = Date.now();
  if (Math.abs(origin + sinceOrigin - system) > MAX_DRIFT_MS) origin = system - sinceOrigin;
  return Math.floor((origin + sinceOrigin) * 1000);
}

let lastSecond = -1;
let lastPrefix = '';

/** `2026-08-01T12:00:00.123456Z` of whole microseconds since 1970. */
export function formatTimestamp(micros: number): string {
  const second = Math.floor(micros / 1_000_000);
  if (second !== lastSecond) {
    lastPrefix = new Date(second * 1000).toISOString().slice(0, -4);
    lastSecond = second;
  }
  return `${lastPrefix}${String(1_000_000 + micros - second * 1_000_000).slice(1)}Z`;
}

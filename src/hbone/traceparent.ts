import { randomFillSync } from 'node:crypto';

/** A trace context (W3C Trace Context §3.2): lower-case hexadecimal ids. */
export interface Traceparent {
  /** 32 digits, not all zero. */
  readonly traceId: string;
  /** 16 digits, not all zero. */
  readonly parentId: string;
  readonly sampled: boolean;
}

/** Makes a source of fresh `traceparent` values, not sampled. `fill` fills its argument with random octets. */
export function createTraceparentSource(fill: (octets: Uint8Array) => unknown = randomFillSync): () => string {
  // One call to the random source costs as much as 64 ids; the pool is made when the first id is asked for.
  let pool: Buffer | null = null;
  let used = 0;
  return () => {
    if (pool === null || used === pool.length) {
      pool ??= Buffer.allocUnsafeSlow(64 * ID_OCTETS);
      fill(pool);
      used = 0;
    }
    const hex = pool.toString('hex', used, used + ID_OCTETS);
    used += ID_OCTETS;
    return `00-${hex.slice(0, 32)}-${hex.slice(32)}-00`;
  };
}

/** Reads a `traceparent` of this or a later version; null when it is none. */
export function parseTraceparent(header: string): Traceparent | null {
  const match = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(header.trim());
  if (match === null) return null;
  const [, version, traceId, parentId, flags, more] = match;
  // Version 00 ends here; later ones may go on; ff is no version (W3C Trace Context §3.2.2, §4).
  if (version === 'ff' || (version === '00' && more !== undefined)) return null;
  if (/^0+$/.test(traceId!) || /^0+$/.test(parentId!)) return null;
  return { traceId: traceId!, parentId: parentId!, sampled: (Number.parseInt(flags!, 16) & 1) === 1 };
}

/** Trace id and parent id. */
const ID_OCTETS = 16 + 8;

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
  let digits = '';
  let used = 0;
  return () => {
    if (used === digits.length) {
      pool ??= Buffer.allocUnsafeSlow(64 * ID_OCTETS);
      fill(pool);
      digits = pool.toString('hex');
      used = 0;
    }
    const parent = used + 2 * TRACE_OCTETS;
    const end = used + 2 * ID_OCTETS;
    const value = `00-${digits.slice(used, parent)}-${digits.slice(parent, end)}-00`;
    used = end;
    return value;
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

const TRACE_OCTETS = 16;
/** Trace id and parent id. */
const ID_OCTETS = TRACE_OCTETS + 8;

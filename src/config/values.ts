import { isIP } from 'node:net';
import { parseFilter } from '../log/level-filter.ts';

/** How the text of a setting becomes a value, and how that value is printed. */
export interface ValueType<T> {
  /** Completes "accepted: …" in errors and in the documentation. */
  readonly accepts: string;
  /** True where an empty text means "not set"; otherwise an empty text is a bad value like any other. */
  readonly emptyIsUnset: boolean;
  /** The value, or undefined when the text is not accepted. */
  parse(text: string): T | undefined;
  /** The value as the config dump shows it. */
  dump(value: T): unknown;
}

/** A timer of Node waits at most 2^31-1 ms (24.8 days); a longer one would fire at once. */
const MAX_TIMER_TEXT = '24d';

export const text: ValueType<string> = valueType('any text', (given) => given, { emptyIsUnset: true });

export const filePath: ValueType<string> = valueType('a path', (given) => given, { emptyIsUnset: true });

export const boolean: ValueType<boolean> = valueType('true or false', (given) =>
  given === 'true' ? true : given === 'false' ? false : undefined,
);

/** As the incumbent's programs in Go read their variables: what Go's strconv.ParseBool takes. */
export const goBoolean: ValueType<boolean> = {
  accepts: 'true or false (also 1, t, T, TRUE, True and 0, f, F, FALSE, False)',
  emptyIsUnset: true,
  parse: parseGoBoolean,
  dump: (value) => value,
};

/** Go's strconv.ParseBool; undefined for anything else. Annotations of pods use it as well (spec node-02 §2.1). */
export function parseGoBoolean(given: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(given)) return true;
  return ['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(given) ? false : undefined;
}

export const absolutePath: ValueType<string> = {
  accepts: 'an absolute path',
  emptyIsUnset: true,
  parse: (given) => (given.startsWith('/') && !given.includes('\0') ? given : undefined),
  dump: (value) => value,
};

/** Names of Kubernetes objects. */
export const names: ValueType<readonly string[]> = {
  accepts: 'names separated by commas',
  emptyIsUnset: false,
  parse(given) {
    const parts = given.split(',').map((part) => part.trim());
    const kept = parts.filter((part) => part !== '');
    return kept.every((part) => /^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/.test(part)) ? kept : undefined;
  },
  dump: (value) => value,
};

/** A part of an identity or of a name inside a path: no separator, no white space. */
export const nameSegment: ValueType<string> = valueType(
  'a name without "/" and white space',
  (given) => (/^[^\s/]+$/.test(given) ? given : undefined),
  { emptyIsUnset: true },
);

export const ipAddress: ValueType<string> = valueType(
  'an IPv4 or IPv6 address',
  (given) => (isIP(given) === 0 ? undefined : given),
  { emptyIsUnset: true },
);

/** IP addresses and CIDR ranges, separated by commas. */
export const addressList: ValueType<readonly string[]> = valueType(
  'IP addresses and CIDR ranges separated by commas, such as 10.0.0.7,fd00::/64',
  (given) => {
    const parts = given.split(',').map((part) => part.trim());
    return parts.every(isAddressOrRange) ? parts : undefined;
  },
  { emptyIsUnset: true },
);

function isAddressOrRange(part: string): boolean {
  const [address = '', bits, ...rest] = part.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128));
}

/** A CIDR block of one family that leaves room for addresses. */
export function cidrBlock(family: 4 | 6): ValueType<string> {
  const bits = family === 4 ? 32 : 128;
  return valueType(
    `an IPv${family} block such as ${family === 4 ? '240.240.0.0/16' : '2001:2::/48'}`,
    (given) => {
      const [address = '', length = ''] = given.split('/');
      const isBlock = isAddressOrRange(given) && isIP(address) === family && length !== '' && Number(length) < bits;
      return isBlock ? given : undefined;
    },
    { emptyIsUnset: true },
  );
}

/** Service accounts of any namespaces. */
export const trustedAccounts: ValueType<readonly string[]> = valueType(
  'service accounts as namespace/name, separated by commas',
  (given) => {
    const parts = given.split(',').flatMap((part) => part.trim() || []);
    return parts.every((part) => /^[a-z0-9][-a-z0-9]*\/[a-z0-9][-.a-z0-9]*$/.test(part)) ? parts : undefined;
  },
  { emptyIsUnset: true },
);

/** `pqc`; empty is none. */
export const compliancePolicy: ValueType<'pqc'> = valueType('pqc', (given) => (given === 'pqc' ? given : undefined), {
  emptyIsUnset: true,
});

export function integer(min: number, max: number): ValueType<number> {
  return valueType(`a whole number from ${min} to ${max}`, (given) => {
    if (!/^\d{1,15}$/.test(given)) return undefined;
    const value = Number(given);
    return value >= min && value <= max ? value : undefined;
  });
}

/** One of the given words; `instead` says what became of well-known words that are not among them. */
export function oneOf<const Word extends string>(words: readonly Word[], instead = ''): ValueType<Word> {
  return valueType(words.join(' or ') + instead, (given) => words.find((word) => word === given));
}

/**
 * A setting of the incumbent of which this version supports one value only. An operator who relies on another must learn
 * that at start-up and not from traffic.
 */
export function fixed<const T>(accepted: string, value: T, because: string): ValueType<T> {
  const accepts = `only ${accepted === '' ? 'empty' : accepted} (${because})`;
  return valueType(accepts, (given) => (given === accepted ? value : undefined));
}

/** Milliseconds from `10s`, `5m`, `1h30m`, `250ms` …; `0` needs no unit. Limits are such texts themselves. */
export function duration(min: string, max: string = MAX_TIMER_TEXT): ValueType<number> {
  const least = parseDuration(min)!;
  const most = parseDuration(max)!;
  return valueType(
    `a duration such as 10s, 5m or 1h30m, from ${min} to ${max}`,
    (given) => {
      const value = parseDuration(given);
      return value !== undefined && value >= least && value <= most ? value : undefined;
    },
    { dump: dumpDuration },
  );
}

/** A duration that the kernel counts in seconds. In milliseconds, like every other. */
export function wholeSeconds(min: string, max: string): ValueType<number> {
  const any = duration(min, max);
  return {
    ...any,
    accepts: `a duration of whole seconds such as 10s or 5m, from ${min} to ${max}`,
    parse: (given) => {
      const value = any.parse(given);
      return value !== undefined && value % 1000 === 0 ? value : undefined;
    },
  };
}

/** Bytes from `4096`, `64Ki`, `256Mi`, `1Gi`. Limits are such texts themselves. */
export function byteSize(min: string, max: string): ValueType<number> {
  const least = parseByteSize(min)!;
  const most = parseByteSize(max)!;
  return valueType(`a number of bytes such as 65536, 64Ki, 256Mi or 1Gi, from ${min} to ${max}`, (given) => {
    const value = parseByteSize(given);
    return value !== undefined && value >= least && value <= most ? value : undefined;
  });
}

/** `https://host:port`; the scheme may be left out. Empty switches that peer off (§15.1). */
export const httpsAddress: ValueType<string> = valueType(
  'https://host[:port] or host:port (only https is spoken), or empty for none',
  (given) => {
    if (given === '') return '';
    const url = URL.parse(given.includes('://') ? given : `https://${given}`);
    if (url === null || url.protocol !== 'https:' || url.hostname === '' || url.username !== '') return undefined;
    return url.pathname === '/' && url.search === '' && url.hash === '' ? `https://${url.host}` : undefined;
  },
);

/** Where the roots come from that a control-plane server is verified against. */
export type RootSource = { kind: 'file'; path: string } | { kind: 'system' } | { kind: 'inline'; pem: string };

export const rootSource: ValueType<RootSource> = valueType(
  'a path, SYSTEM for the roots of the operating system, or certificates as PEM text',
  (given) => {
    if (given === 'SYSTEM') return { kind: 'system' };
    return given.includes('-----BEGIN ') ? { kind: 'inline', pem: given } : { kind: 'file', path: given };
  },
  {
    emptyIsUnset: true,
    dump: (roots) =>
      roots.kind === 'file' ? { File: roots.path } : roots.kind === 'inline' ? { Static: [] } : 'Default',
  },
);

/** CPUs from a Kubernetes quantity: `2`, `1.5`, `500m`. */
export const cpuQuantity: ValueType<number> = valueType('a number of CPUs such as 2, 1.5 or 500m', (given) => {
  const match = /^(\d{1,6}(?:\.\d{1,9})?)(m?)$/.exec(given);
  return match ? Number(match[1]) / (match[2] === 'm' ? 1000 : 1) : undefined;
});

/** What `ZTUNNEL_WORKER_THREADS` asks for. */
export type WorkerRequest = { kind: 'count'; threads: number } | { kind: 'percent'; percent: number } | { kind: 'all' };

export const workerRequest: ValueType<WorkerRequest> = valueType(
  'a number of threads up to 1024, a percentage of the CPUs such as 50%, or 0 for one per CPU',
  (given) => {
    const match = /^(\d{1,4}(?:\.\d{1,3})?)(%?)$/.exec(given);
    if (!match) return undefined;
    const value = Number(match[1]);
    if (match[2] === '%') return value <= 1000 ? { kind: 'percent', percent: value } : undefined;
    if (!Number.isInteger(value) || value > 1024) return undefined;
    return value === 0 ? { kind: 'all' } : { kind: 'count', threads: value };
  },
);

/** `info`, `warn,access=info,zds=debug` … (§13.5), in the logger's own grammar. */
export const logFilter: ValueType<string> = valueType(
  'a comma list of off, error, warn, info, debug, trace or target=level',
  (given) => {
    try {
      parseFilter(given);
      return given;
    } catch {
      return undefined;
    }
  },
  { emptyIsUnset: true },
);

/** A duration as the config dump shows it (§14.4). */
export function dumpDuration(ms: number): { secs: number; nanos: number } {
  const secs = Math.floor(ms / 1000);
  return { secs, nanos: Math.round((ms - secs * 1000) * 1e6) };
}

const DURATION_UNITS_MS = new Map([
  ['ns', 1e-6],
  ['us', 1e-3],
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
  ['w', 604_800_000],
]);
const DURATION = /^(?:\d{1,12}(?:\.\d{1,9})?(?:ns|us|ms|s|m|h|d|w) ?)+$/;

function parseDuration(given: string): number | undefined {
  if (given === '0') return 0;
  if (!DURATION.test(given)) return undefined;
  let ms = 0;
  for (const [, amount, unit] of given.matchAll(/([\d.]+)([a-z]+)/g))
    ms += Number(amount) * DURATION_UNITS_MS.get(unit!)!;
  return ms;
}

const BYTE_UNITS = new Map([
  ['', 1],
  ['Ki', 1024],
  ['Mi', 1024 ** 2],
  ['Gi', 1024 ** 3],
]);

function parseByteSize(given: string): number | undefined {
  const match = /^(\d{1,15})(Ki|Mi|Gi)?$/.exec(given);
  if (!match) return undefined;
  const value = Number(match[1]) * BYTE_UNITS.get(match[2] ?? '')!;
  return Number.isSafeInteger(value) ? value : undefined;
}

function valueType<T>(
  accepts: string,
  parse: (given: string) => T | undefined,
  options: { emptyIsUnset?: boolean; dump?: (value: T) => unknown } = {},
): ValueType<T> {
  return {
    accepts,
    parse,
    emptyIsUnset: options.emptyIsUnset ?? false,
    dump: options.dump ?? ((value) => value),
  };
}

import { messageOf } from '../errors.ts';
import type { Problems } from './problems.ts';
import { httpsAddress, integer, type ValueType } from './values.ts';

/** What culvert takes from istio's ProxyConfig (§15.2). Null is "not given". */
export interface ProxyConfig {
  readonly discoveryAddress: string | null;
  readonly proxyAdminPort: number | null;
  readonly statsPort: number | null;
  readonly concurrency: number | null;
  readonly proxyMetadata: Readonly<Record<string, string>>;
}

/** Where one ProxyConfig comes from; `source` is what errors call it. */
export interface ProxyConfigText {
  readonly source: string;
  readonly text: string;
  /** The mesh file holds the ProxyConfig under this key. */
  readonly under: 'defaultConfig' | null;
}

/** The given texts merged: a later one wins, metadata key by key. Mistakes go to `problems`. */
export async function readProxyConfig(texts: readonly ProxyConfigText[], problems: Problems): Promise<ProxyConfig> {
  let merged: ProxyConfig = {
    discoveryAddress: null,
    proxyAdminPort: null,
    statsPort: null,
    concurrency: null,
    proxyMetadata: {},
  };
  for (const given of texts) {
    const document = await parseYaml(given, problems);
    if (document === null) continue;
    const read = reader(document, given.source, problems);
    merged = {
      discoveryAddress: read('discoveryAddress', httpsAddress) ?? merged.discoveryAddress,
      proxyAdminPort: read('proxyAdminPort', integer(0, 65535)) ?? merged.proxyAdminPort,
      statsPort: read('statsPort', integer(0, 65535)) ?? merged.statsPort,
      concurrency: read('concurrency', integer(0, 1024)) ?? merged.concurrency,
      proxyMetadata: { ...merged.proxyMetadata, ...readMetadata(document.proxyMetadata, given.source, problems) },
    };
  }
  return merged;
}

type Mapping = Record<string, unknown>;

async function parseYaml(given: ProxyConfigText, problems: Problems): Promise<Mapping | null> {
  // Loaded here because the parser keeps 7 MB resident and most agents have neither file nor variable.
  const { parse } = await import('yaml');
  let document: unknown;
  try {
    document = parse(given.text);
  } catch (error) {
    problems.add(given.source, undefined, `YAML (${messageOf(error).split('\n')[0]})`);
    return null;
  }
  if (document === null || document === undefined) return null;
  if (!isMapping(document)) {
    problems.add(given.source, given.text, 'a YAML mapping');
    return null;
  }
  if (given.under === null) return document;
  const inner = document[given.under] ?? null;
  if (inner === null || isMapping(inner)) return inner;
  problems.add(`${given.source}.${given.under}`, String(inner), 'a YAML mapping');
  return null;
}

function reader(document: Mapping, source: string, problems: Problems) {
  return <T>(field: string, type: ValueType<T>): T | undefined => {
    const given = document[field] ?? null;
    if (given === null || given === '') return undefined;
    const value = isScalar(given) ? type.parse(String(given)) : undefined;
    if (value === undefined)
      problems.add(`${source}.${field}`, isScalar(given) ? String(given) : JSON.stringify(given), type.accepts);
    return value;
  };
}

function readMetadata(given: unknown, source: string, problems: Problems): Record<string, string> {
  if (given === null || given === undefined) return {};
  const entries = isMapping(given) ? Object.entries(given) : [];
  if (!isMapping(given) || !entries.every(([, value]) => isScalar(value))) {
    problems.add(`${source}.proxyMetadata`, JSON.stringify(given), 'a mapping of names to texts');
    return {};
  }
  return Object.fromEntries(entries.map(([key, value]) => [key.replace(/^ISTIO_META_/, ''), String(value)]));
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isScalar(value: unknown): value is string | number | boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}

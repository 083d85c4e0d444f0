import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Problems } from './problems.ts';
import { type ProxyConfigText, readProxyConfig } from './proxy-config.ts';
import { Secret } from './secret.ts';
import type { Setting } from './setting.ts';
import { families, settings } from './settings.ts';
import type { ValueType } from './values.ts';
import { workerThreads } from './worker-threads.ts';

/** The environment of a process. */
export type Environment = Readonly<Record<string, string | undefined>>;

type Table = typeof settings;
/** The type of a row's value. */
export type ValueOf<Row> = Row extends { type: ValueType<infer T>; default: infer Default }
  ? Default extends null
    ? T | null
    : T
  : never;

/** Every row of the table with its value. Durations are milliseconds, sizes bytes; null is "not given, no default". */
export type Settings = { readonly [Key in keyof Table]: ValueOf<Table[Key]> };

/** What follows from several settings, from files or from the machine. */
export interface DerivedSettings {
  readonly adminPort: number;
  readonly statsPort: number;
  /** How long connections may go on after the agent was told to stop, in ms. */
  readonly terminationDeadline: number;
  readonly network: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly serviceAccount: string;
  /** The agent's own identity, when it knows its own pod. */
  readonly agentIdentity: string | null;
  readonly workerThreads: number;
  /** Mesh state without a control plane. */
  readonly localConfig: { kind: 'file'; path: string } | { kind: 'inline'; text: string } | null;
  /** `https://host:port`; null when switched off. */
  readonly xdsAddress: string | null;
  readonly caAddress: string | null;
  readonly authToken: TokenSource;
  readonly xdsHeaders: readonly Header[];
  readonly caHeaders: readonly Header[];
  /** Node metadata; what ISTIO_META_ variables and the proxy configuration give, prefix removed. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly metadataJson: Readonly<Record<string, unknown>>;
  /** The arguments the agent was started with. */
  readonly argv: readonly string[];
}

type InputKey = { [Key in keyof Table]: Table[Key] extends { input: true } ? Key : never }[keyof Table];

export type Config = Omit<Settings, InputKey | keyof DerivedSettings> & DerivedSettings;

/** Where the token for the control plane comes from; a file is read for every request. */
export type TokenSource = { kind: 'none' } | { kind: 'file'; path: string } | { kind: 'literal'; token: Secret };

/** A further header of control-plane requests, name in lower case. */
export interface Header {
  readonly name: string;
  readonly value: Secret;
}

/** What loading asks of the machine. */
export interface System {
  exists(path: string): boolean;
  readText(path: string): string;
  logicalCpus(): number;
}

/**
 * Reads the whole configuration (spec §15). Nothing is started and nothing is written.
 * @param env the environment, normally `process.env`
 * @param argv the arguments of the agent, only shown in the config dump
 * @throws CulvertError CONFIG_INVALID naming every bad value: the variable, what was given, what is accepted
 */
export async function loadConfig(
  env: Environment,
  argv: readonly string[],
  system: System = realSystem,
): Promise<Config> {
  const problems = new Problems();
  const given = readTable(env, settings, problems) as Settings;
  const texts: ProxyConfigText[] = [];
  if (system.exists(MESH_FILE)) {
    texts.push({ source: MESH_FILE, text: system.readText(MESH_FILE), under: 'defaultConfig' });
  }
  if (given.proxyConfig !== null) {
    texts.push({ source: settings.proxyConfig.env, text: given.proxyConfig, under: null });
  }
  const proxyConfig = await readProxyConfig(texts, problems);
  const metadata = readFamily(env, families.metadata, problems);
  const metadataJson = parseJsonValues(readFamily(env, families.metadataJson, problems), problems);
  const derived: DerivedSettings = {
    adminPort: given.adminPort ?? proxyConfig.proxyAdminPort ?? 15000,
    statsPort: given.statsPort ?? proxyConfig.statsPort ?? 15020,
    terminationDeadline: terminationDeadline(given),
    network: given.network ?? '',
    podName: given.podName ?? '',
    podNamespace: given.podNamespace ?? '',
    serviceAccount: given.serviceAccount ?? '',
    agentIdentity: agentIdentity(given),
    workerThreads: workerThreads({
      requested: given.workerThreads,
      concurrency: proxyConfig.concurrency,
      resourceLimit: given.resourceCpuLimit,
      resourceRequest: given.resourceCpuRequest,
      cpuLimit: given.cpuLimit,
      logicalCpus: system.logicalCpus(),
    }),
    localConfig: localConfig(given, problems),
    xdsAddress: (given.xdsAddressGiven ?? proxyConfig.discoveryAddress ?? defaultControlPlane(given)) || null,
    caAddress: (given.caAddressGiven ?? defaultControlPlane(given)) || null,
    authToken: tokenSource(given.authTokenGiven, system),
    xdsHeaders: headers(readFamily(env, families.xdsHeaders, problems)),
    caHeaders: headers(readFamily(env, families.caHeaders, problems)),
    metadata: { ...proxyConfig.proxyMetadata, ...metadata },
    metadataJson,
    argv,
  };
  if (given.tls12Enabled && given.compliancePolicy !== null) {
    const both = `${settings.tls12Enabled.env}=true and ${settings.compliancePolicy.env}=${given.compliancePolicy}`;
    problems.add(both, undefined, 'one of the two (TLS 1.2 has no key exchange that the policy permits)');
  }
  problems.throwIfAny();
  const direct = Object.entries(given).filter(([key]) => !('input' in settings[key as keyof Table]));
  return { ...(Object.fromEntries(direct) as Omit<Settings, InputKey>), ...derived };
}

const MESH_FILE = './etc/istio/config/mesh';
const TOKEN_FILE = './var/run/secrets/tokens/istio-token';

const realSystem: System = {
  exists: existsSync,
  readText: (path) => readFileSync(path, 'utf8'),
  logicalCpus: availableParallelism,
};

/** The values of one table, by the rows' keys. Bad values are noted, and their defaults stand in. */
export function readTable(
  env: Environment,
  table: Readonly<Record<string, Setting>>,
  problems: Problems,
): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([key, row]) => [key, readSetting(env, row, problems)]));
}

function readSetting(env: Environment, row: Setting, problems: Problems): unknown {
  for (const variable of row.overriddenBy === undefined ? [row.env] : [row.overriddenBy, row.env]) {
    const given = env[variable];
    if (given === undefined || (given === '' && row.type.emptyIsUnset)) continue;
    const value = row.type.parse(given);
    if (value !== undefined) return value;
    problems.add(variable, given, row.type.accepts, { secret: row.secret });
    break; // the default stands in, so that what is derived from it finds a value
  }
  return row.default === null ? null : row.type.parse(row.default);
}

function readFamily(
  env: Environment,
  family: { readonly env: string; readonly key: RegExp },
  problems: Problems,
): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [variable, value] of Object.entries(env)) {
    if (value === undefined || !variable.startsWith(family.env) || variable === family.env) continue;
    const key = variable.slice(family.env.length);
    if (family.key.test(key)) found[key] = value;
    else {
      const accepts =
        'a header name after the prefix, none that HTTP/2 or gRPC sets or forbids and none for binary values';
      problems.add(variable, undefined, accepts);
    }
  }
  return found;
}

function parseJsonValues(texts: Record<string, string>, problems: Problems): Record<string, unknown> {
  const parsed: Record<string, unknown> = {};
  for (const [key, text] of Object.entries(texts)) {
    try {
      parsed[key] = JSON.parse(text);
    } catch {
      problems.add(families.metadataJson.env + key, text, 'a JSON value');
    }
  }
  return parsed;
}

function headers(texts: Record<string, string>): Header[] {
  return Object.entries(texts).map(([key, value]) => ({ name: key.toLowerCase(), value: new Secret(value) }));
}

/** Less than the grace period, so that the agent ends by itself; a period of 0 or 1 s still leaves a second. */
function terminationDeadline(given: Settings): number {
  if (given.connectionTerminationDeadline !== null) return given.connectionTerminationDeadline;
  const period = given.terminationGracePeriod;
  if (period === null) return 5000;
  return Math.max(1, period > 10 ? period - 5 : period - 1) * 1000;
}

function agentIdentity(given: Settings): string | null {
  const { podName, podNamespace, serviceAccount, trustDomain } = given;
  if (podName === null || podNamespace === null || serviceAccount === null) return null;
  return `spiffe://${trustDomain}/ns/${podNamespace}/sa/${serviceAccount}`;
}

function localConfig(given: Settings, problems: Problems): DerivedSettings['localConfig'] {
  const { localXdsPath: path, localXds: text } = given;
  if (path !== null && text !== null) {
    problems.add(`${settings.localXdsPath.env} and ${settings.localXds.env}`, undefined, 'one of the two');
  }
  if (path !== null) return { kind: 'file', path };
  return text === null ? null : { kind: 'inline', text };
}

function defaultControlPlane(given: Settings): string {
  return given.kubernetesServiceHost === null ? 'https://localhost:15012' : 'https://istiod.istio-system.svc:15012';
}

function tokenSource(given: string | null, system: System): TokenSource {
  if (given === null) return system.exists(TOKEN_FILE) ? { kind: 'file', path: TOKEN_FILE } : { kind: 'none' };
  return system.exists(given) ? { kind: 'file', path: given } : { kind: 'literal', token: new Secret(given) };
}

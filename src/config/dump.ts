import type { Config } from './config.ts';
import { ILLEGAL_PORTS, INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT } from './ports.ts';
import { MASK } from './secret.ts';
import type { Setting } from './setting.ts';
import { settings } from './settings.ts';
import { dumpDuration } from './values.ts';

/**
 * The `config` section of the config dump (§14.4): plain JSON data with the incumbent's names and shapes where it has
 * the setting, and culvert's own settings under their own names. Unlike the incumbent's it shows no header values.
 */
export function dumpConfig(config: Config): Record<string, unknown> {
  const dump: Record<string, unknown> = { ...fromTable(config), ...composed(config) };
  return Object.fromEntries(Object.entries(dump).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function fromTable(config: Config): Record<string, unknown> {
  const dump: Record<string, unknown> = {};
  for (const [key, row] of Object.entries<Setting>(settings)) {
    if (row.input || row.dump === null) continue;
    const value = config[key as keyof Config] ?? null;
    place(dump, (row.dump ?? key).split('.'), value === null ? null : row.type.dump(value));
  }
  return dump;
}

function place(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [key, ...rest] = path;
  if (key === undefined) return;
  if (rest.length === 0) {
    target[key] = value;
    return;
  }
  const inner = (target[key] ?? {}) as Record<string, unknown>;
  target[key] = inner;
  place(inner, rest, value);
}

/** What is not one variable, or is shown differently from how it is set. */
function composed(config: Config): Record<string, unknown> {
  const any = config.ipv6Enabled ? '[::]' : '0.0.0.0';
  return {
    proxyMode: 'Shared',
    proxyWorkloadInformation: null,
    fakeSelfInbound: false,
    proxyArgs: config.argv.join(' '),
    adminAddr: { Localhost: [config.ipv6Enabled, config.adminPort] },
    statsAddr: { SocketAddr: `${any}:${config.statsPort}` },
    readinessAddr: { SocketAddr: `${any}:${config.readinessPort}` },
    inboundAddr: `${any}:${INBOUND_HBONE_PORT}`,
    inboundPlaintextAddr: `${any}:${INBOUND_PLAINTEXT_PORT}`,
    outboundAddr: `${any}:${OUTBOUND_PORT}`,
    illegalPorts: [...ILLEGAL_PORTS],
    network: config.network,
    numWorkerThreads: config.workerThreads,
    selfTerminationDeadline: dumpDuration(config.terminationDeadline),
    xdsAddress: config.xdsAddress,
    xdsHeaders: config.xdsHeaders.map(({ name }) => [name, MASK]),
    caAddress: config.caAddress,
    caHeaders: config.caHeaders.map(({ name }) => [name, MASK]),
    proxyMetadata: { ...config.metadata },
    ztunnelIdentity: config.agentIdentity,
    ztunnelWorkload:
      config.agentIdentity === null
        ? null
        : { name: config.podName, namespace: config.podNamespace, serviceAccount: config.serviceAccount },
  };
}

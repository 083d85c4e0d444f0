import { ACCESS_TARGET, type AccessRecord, type ConnectionSides } from '../log/access.ts';
import type { Logger } from '../log/logger.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { Filter } from './chain.ts';
import type { ConnectionContext, ProxiedConnection } from './connection.ts';
import { CONTINUE, type Refusal } from './verdict.ts';

/** Writes the access log (spec §13.4). */
export function accessLog(log: Logger): Filter<ProxiedConnection> {
  return {
    name: 'access-log',
    check: () => CONTINUE,
    opened(connection) {
      if (!log.logs('debug', ACCESS_TARGET)) return;
      log.access({ kind: 'opened', ...sides(connection, connection.context!) });
    },
    completed(connection, refusal) {
      if (refusal === null && !log.logs('info', ACCESS_TARGET)) return;
      log.access(recordOf(connection, refusal));
    },
  };
}

/** Counts connections and bytes (spec §12.2). */
export function stats(): Filter<ProxiedConnection> {
  return {
    name: 'stats',
    check: () => CONTINUE,
    opened: count,
    moved(connection, before) {
      // One connection of the client is one in the metrics, unless it ends up where the labels are others.
      if (isLabelledAlike(before, connection.context!)) return;
      connection.home.traffic.close(connection.traffic, '-');
      count(connection);
    },
    completed(connection, refusal) {
      if (connection.traffic >= 0) connection.home.traffic.close(connection.traffic, refusal?.flag ?? '-');
    },
  };
}

function count(connection: ProxiedConnection): void {
  connection.traffic = connection.home.traffic.open(connection.context!.labels);
}

/** The destinations differ in their pods at most, which no label tells (spec §12.1). */
function isLabelledAlike(a: ConnectionContext, b: ConnectionContext): boolean {
  if (a.labels.mutualTls !== b.labels.mutualTls || a.destination === null || b.destination === null) return false;
  const { uid, name, ...labels } = a.destination;
  return Object.entries(labels).every(([label, value]) => b.destination![label as keyof typeof labels] === value);
}

function recordOf(connection: ProxiedConnection, refusal: Refusal | null): AccessRecord {
  const { context } = connection;
  const isOutbound = connection.listener === 'outbound';
  if (context === null) {
    return {
      kind: 'failed',
      sourceAddress: address(connection.peerIp, connection.peerPort),
      destinationAddress: address(connection.destinationIp, connection.destinationPort),
      direction: isOutbound ? 'outbound' : 'inbound',
      error: refusal?.message ?? 'connection closed by the client',
    };
  }
  return {
    kind: 'complete',
    ...sides(connection, context),
    // As this agent's sockets see it: sent is what went on towards the peer of the other agent.
    bytesSent: isOutbound ? connection.bytesFromClient : connection.bytesFromServer,
    bytesReceived: isOutbound ? connection.bytesFromServer : connection.bytesFromClient,
    durationMs: performance.now() - connection.startedAt,
    error: refusal?.message ?? '',
  };
}

function sides(connection: ProxiedConnection, context: ConnectionContext): ConnectionSides {
  const { source, destination, service } = context;
  return {
    sourceAddress: address(connection.peerIp, connection.peerPort),
    sourceWorkload: source === null ? '' : source.name || source.canonicalName,
    sourceNamespace: source?.namespace ?? '',
    sourceIdentity: context.sourceIdentity,
    sourceCluster: source?.clusterId ?? '',
    destinationAddress: context.destinationAddress,
    hboneAddress: context.hboneAddress,
    destinationService: service?.hostname ?? '',
    destinationWorkload: destination === null ? '' : destination.name || destination.canonicalName,
    destinationNamespace: destination?.namespace ?? '',
    destinationIdentity: context.destinationIdentity,
    destinationCluster: destination?.clusterId ?? '',
    direction: connection.listener === 'outbound' ? 'outbound' : 'inbound',
  };
}

function address(ip: string, port: number): string {
  return formatSocketAddress({ ip, port });
}

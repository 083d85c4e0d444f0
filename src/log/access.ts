/**
 * Access log lines (spec §13.4): one per connection at its end, on demand one at its start, and one per connection that
 * was refused before anything was known about it. Formatted per connection, so without intermediate objects.
 */
import { bare, jsonString, quoted } from './escape.ts';
import type { Level } from './level-filter.ts';
import { cut, fitted, type LogFormat } from './line.ts';

export const ACCESS_TARGET = 'access';

export type AccessRecord = ConnectionOpened | ConnectionComplete | ConnectionFailed;

/** Both sides of a connection. Addresses are `ip:port`, identities SPIFFE ids; '' leaves a field out. */
export interface ConnectionSides {
  readonly sourceAddress: string;
  /** Pod name, else the canonical service. */
  readonly sourceWorkload: string;
  readonly sourceNamespace: string;
  /** Only what mTLS proved. */
  readonly sourceIdentity: string;
  readonly sourceCluster: string;
  /** Next hop of an outbound connection; inbound the pod's own port 15008, or the original destination of plain text. */
  readonly destinationAddress: string;
  /** Authority of the CONNECT request. */
  readonly hboneAddress: string;
  readonly destinationService: string;
  readonly destinationWorkload: string;
  readonly destinationNamespace: string;
  /** Only what mTLS proved. */
  readonly destinationIdentity: string;
  readonly destinationCluster: string;
  readonly direction: 'inbound' | 'outbound';
}

/** Debug. */
export interface ConnectionOpened extends ConnectionSides {
  readonly kind: 'opened';
}

/** Info, or error when `error` is not ''. Bytes are counted from this agent's side (spec §13.4, fields 14 and 15). */
export interface ConnectionComplete extends ConnectionSides {
  readonly kind: 'complete';
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Whole milliseconds are printed. */
  readonly durationMs: number;
  readonly error: string;
}

/** Warn. */
export interface ConnectionFailed {
  readonly kind: 'failed';
  readonly sourceAddress: string;
  readonly destinationAddress: string;
  readonly direction: 'inbound' | 'outbound';
  readonly error: string;
}

export function accessLevel(record: AccessRecord): Level {
  switch (record.kind) {
    case 'opened':
      return 'debug';
    case 'complete':
      return record.error === '' ? 'info' : 'error';
    case 'failed':
      return 'warn';
  }
}

/** The line of a record with its line feed, at most MAX_LINE_BYTES long. */
export function formatAccess(record: AccessRecord, timestamp: string, format: LogFormat): string {
  const render = format === 'json' ? renderJson : renderPlain;
  // The 17 fields always fit at the last of the limits.
  return fitted((limit) => render(record, timestamp, limit)) as string;
}

function renderPlain(record: AccessRecord, timestamp: string, limit: number): string {
  return `${timestamp}\t${accessLevel(record)}\t${ACCESS_TARGET}\tconnection ${record.kind}\tsrc.addr=${bare(cut(record.sourceAddress, limit))}${
    record.kind === 'failed' ? '' : plainSource(record, limit)
  } dst.addr=${bare(cut(record.destinationAddress, limit))}${
    record.kind === 'failed' ? '' : plainDestination(record, limit)
  } direction="${record.direction}"${record.kind === 'complete' ? plainCounters(record) : ''}${
    record.kind === 'opened' ? '' : plainString('error', record.error, limit)
  }\n`;
}

function plainSource(sides: ConnectionSides, limit: number): string {
  return (
    plainString('src.workload', sides.sourceWorkload, limit) +
    plainString('src.namespace', sides.sourceNamespace, limit) +
    plainString('src.identity', sides.sourceIdentity, limit) +
    plainString('src.cluster', sides.sourceCluster, limit)
  );
}

function plainDestination(sides: ConnectionSides, limit: number): string {
  return (
    (sides.hboneAddress === '' ? '' : ` dst.hbone_addr=${bare(cut(sides.hboneAddress, limit))}`) +
    plainString('dst.service', sides.destinationService, limit) +
    plainString('dst.workload', sides.destinationWorkload, limit) +
    plainString('dst.namespace', sides.destinationNamespace, limit) +
    plainString('dst.identity', sides.destinationIdentity, limit) +
    plainString('dst.cluster', sides.destinationCluster, limit)
  );
}

function plainCounters(record: ConnectionComplete): string {
  return ` bytes_sent=${record.bytesSent} bytes_recv=${record.bytesReceived} duration="${Math.floor(record.durationMs)}ms"`;
}

function plainString(name: string, value: string, limit: number): string {
  return value === '' ? '' : ` ${name}=${quoted(cut(value, limit))}`;
}

function renderJson(record: AccessRecord, timestamp: string, limit: number): string {
  return `{"level":"${accessLevel(record)}","time":"${timestamp}","scope":"${ACCESS_TARGET}","message":"connection ${record.kind}"${
    jsonField('src.addr', record.sourceAddress, limit) + (record.kind === 'failed' ? '' : jsonSource(record, limit))
  }${
    jsonField('dst.addr', record.destinationAddress, limit) +
    (record.kind === 'failed' ? '' : jsonDestination(record, limit))
  },"direction":"${record.direction}"${record.kind === 'complete' ? jsonCounters(record) : ''}${
    record.kind === 'opened' ? '' : jsonField('error', record.error, limit)
  }}\n`;
}

function jsonSource(sides: ConnectionSides, limit: number): string {
  return (
    jsonField('src.workload', sides.sourceWorkload, limit) +
    jsonField('src.namespace', sides.sourceNamespace, limit) +
    jsonField('src.identity', sides.sourceIdentity, limit) +
    jsonField('src.cluster', sides.sourceCluster, limit)
  );
}

function jsonDestination(sides: ConnectionSides, limit: number): string {
  return (
    jsonField('dst.hbone_addr', sides.hboneAddress, limit) +
    jsonField('dst.service', sides.destinationService, limit) +
    jsonField('dst.workload', sides.destinationWorkload, limit) +
    jsonField('dst.namespace', sides.destinationNamespace, limit) +
    jsonField('dst.identity', sides.destinationIdentity, limit) +
    jsonField('dst.cluster', sides.destinationCluster, limit)
  );
}

function jsonCounters(record: ConnectionComplete): string {
  return `,"bytes_sent":${record.bytesSent},"bytes_recv":${record.bytesReceived},"duration":"${Math.floor(record.durationMs)}ms"`;
}

function jsonField(name: string, value: string, limit: number): string {
  return value === '' ? '' : `,"${name}":${jsonString(cut(value, limit))}`;
}

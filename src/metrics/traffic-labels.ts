import type { ServiceLabels, WorkloadLabels } from '../routing/plan.ts';

/** What is known about a connection when its traffic starts to be counted (spec §12.2). */
export interface TrafficLabels {
  /** `source`: outbound listeners; `destination`: inbound listeners. */
  readonly reporter: 'source' | 'destination';
  readonly source: WorkloadLabels | null;
  /** Its `identity` is reported also for plain text. */
  readonly destination: WorkloadLabels | null;
  readonly service: ServiceLabels | null;
  /** SPIFFE id of the source that mTLS proved; '' without mTLS */
  readonly sourcePrincipal: string;
  readonly mutualTls: boolean;
  /** `source_app` where it is not the canonical name: what baggage says of a workload that is not known. */
  readonly sourceApp: string | null;
  /** Other connections have these very labels too. */
  readonly isShared: boolean;
}

/** How a connection ended; `-` is well. Values of `response_flags`. */
export const RESPONSE_FLAGS = [
  '-',
  'DENY',
  'CONNECT',
  'TLS_FAILURE',
  'H2_HANDSHAKE_FAILURE',
  'NETWORK_POLICY',
  'IDENTITY_ERROR',
  'CERT_REVOKED',
] as const;
export type ResponseFlag = (typeof RESPONSE_FLAGS)[number];

/** What is said of the source of a connection, in the incumbent's order. */
export const SOURCE_LABELS = [
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
] as const;

/** Labels before `response_flags`, in the incumbent's order. */
export const LEADING_LABELS = [
  'reporter',
  ...SOURCE_LABELS,
  'destination_service',
  'destination_service_namespace',
  'destination_service_name',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'destination_workload_namespace',
  'destination_principal',
  'destination_app',
  'destination_version',
  'destination_cluster',
  'request_protocol',
] as const;

/** Labels after `response_flags`. The last four are there only when a workload is known. */
export const TRAILING_LABELS = [
  'connection_security_policy',
  'source_region',
  'source_zone',
  'destination_region',
  'destination_zone',
] as const;

/** Keeps label values apart in a series key. Neither HTTP fields (RFC 9113 §8.2.1) nor Kubernetes names can hold it. */
const SEPARATOR = '\0';

/** Connections that are alike share their labels: a key is made once for all of them. Others keep none while they are held. */
const keys = new WeakMap<TrafficLabels, string>();

/** One text for a label set, from which `labelsOfKey` gets the values back. */
export function seriesKey(labels: TrafficLabels): string {
  if (!labels.isShared) return newKey(labels);
  let key = keys.get(labels);
  if (key === undefined) {
    key = newKey(labels);
    keys.set(labels, key);
  }
  return key;
}

function newKey(labels: TrafficLabels): string {
  const { source, destination, service } = labels;
  const parts = labels.isShared ? partsOf : newParts;
  const from = source === null ? NO_WORKLOAD : parts(source);
  const to = destination === null ? NO_WORKLOAD : parts(destination);
  const principal = destination?.identity ?? '';
  const app = labels.sourceApp ?? from.app;
  const asked = service === null ? '\0\0' : `${service.hostname}\0${service.namespace}\0${service.name}`;
  const security = labels.mutualTls ? 'mutual_tls' : 'unknown';
  const key = `${labels.reporter}\0${from.names}\0${labels.sourcePrincipal}\0${app}\0${from.version}\0${asked}\0${to.names}\0${principal}\0${to.app}\0${to.version}\0tcp\0${security}`;
  return source === null && destination === null ? key : `${key}\0${from.place}\0${to.place}`;
}

/** What a workload contributes to the keys of its connections, on either side. */
interface WorkloadParts {
  readonly names: string;
  readonly app: string;
  /** Version and cluster. */
  readonly version: string;
  readonly place: string;
}

const NO_WORKLOAD: WorkloadParts = { names: '\0\0\0', app: '', version: '\0', place: '\0' };
const partsByWorkload = new WeakMap<WorkloadLabels, WorkloadParts>();

function partsOf(workload: WorkloadLabels): WorkloadParts {
  let parts = partsByWorkload.get(workload);
  if (parts === undefined) {
    parts = newParts(workload);
    partsByWorkload.set(workload, parts);
  }
  return parts;
}

function newParts(workload: WorkloadLabels): WorkloadParts {
  const { workloadName, canonicalName, canonicalRevision, namespace, clusterId, region, zone } = workload;
  return {
    names: `${workloadName}\0${canonicalName}\0${canonicalRevision}\0${namespace}`,
    app: canonicalName,
    version: `${canonicalRevision}\0${clusterId}`,
    place: `${region}\0${zone}`,
  };
}

/** The values for LEADING_LABELS and TRAILING_LABELS, the latter perhaps without the places; never more than there are names. */
export function labelsOfKey(key: string): { leading: string[]; trailing: string[] } {
  const values = key.split(SEPARATOR);
  const flagsPlace = LEADING_LABELS.length;
  return {
    leading: values.slice(0, flagsPlace),
    trailing: values.slice(flagsPlace, flagsPlace + TRAILING_LABELS.length),
  };
}

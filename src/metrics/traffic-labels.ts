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
  readonly sourceApp?: string;
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

/** Labels before `response_flags`, in the incumbent's order. */
export const LEADING_LABELS = [
  'reporter',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
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

/** One text for a label set, from which `labelsOfKey` gets the values back. The hot part of counting a connection. */
export function seriesKey(labels: TrafficLabels): string {
  const { source, destination, service } = labels;
  return `${labels.reporter}\0${
    source === null
      ? `\0\0\0\0${labels.sourcePrincipal}\0${labels.sourceApp ?? ''}\0\0\0`
      : `${source.workloadName}\0${source.canonicalName}\0${source.canonicalRevision}\0${source.namespace}\0${labels.sourcePrincipal}\0${labels.sourceApp ?? source.canonicalName}\0${source.canonicalRevision}\0${source.clusterId}\0`
  }${service === null ? '\0\0\0' : `${service.hostname}\0${service.namespace}\0${service.name}\0`}${
    destination === null
      ? '\0\0\0\0\0\0\0\0'
      : `${destination.workloadName}\0${destination.canonicalName}\0${destination.canonicalRevision}\0${destination.namespace}\0${destination.identity}\0${destination.canonicalName}\0${destination.canonicalRevision}\0${destination.clusterId}\0`
  }tcp\0${labels.mutualTls ? 'mutual_tls' : 'unknown'}${
    source === null && destination === null
      ? ''
      : `\0${source?.region ?? ''}\0${source?.zone ?? ''}\0${destination?.region ?? ''}\0${destination?.zone ?? ''}`
  }`;
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

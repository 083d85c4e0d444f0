import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { annotation, type Labels, type Metadata, readMetadata } from './metadata.ts';
import { type ReportedConditions, readConditions } from './reported-conditions.ts';
import { type EntryEndpoint, readEntryEndpoint } from './service-entry.ts';
import { sharedData } from './shared.ts';

/** `labels` are those of spec and metadata together; metadata wins. */
export interface WorkloadEntry extends Metadata {
  readonly endpoint: EntryEndpoint;
  readonly workloadName: string;
  readonly isRedirected: boolean;
  readonly reported: ReportedConditions;
}

export const WORKLOAD_ENTRIES: Kind<WorkloadEntry> = {
  kind: 'WorkloadEntry',
  group: 'networking.istio.io',
  version: 'v1',
  plural: 'workloadentries',
  namespaced: true,
  optional: true,
  read: readWorkloadEntry,
};

function readWorkloadEntry(object: unknown): WorkloadEntry {
  const entry = Field.of(object);
  const metadata = readMetadata(entry);
  const endpoint = readEntryEndpoint(entry.at('spec'));
  const labels: Labels = sharedData({ ...endpoint.labels, ...metadata.labels });
  return {
    ...metadata,
    labels,
    endpoint,
    workloadName:
      annotation(entry, 'istio.io/autoRegistrationGroup') || labels['service.istio.io/workload-name'] || metadata.name,
    isRedirected: annotation(entry, 'ambient.istio.io/redirection') === 'enabled',
    reported: readConditions(entry),
  };
}

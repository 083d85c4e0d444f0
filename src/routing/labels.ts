import { identityOf, type Service, type Workload } from '../state/types.ts';
import type { UpstreamGroup } from './load-balance.ts';
import type { ServiceLabels, WorkloadLabels } from './plan.ts';

/** What telemetry shows of a workload. */
export function workloadLabels(workload: Workload): WorkloadLabels {
  return { uid: workload.uid, name: workload.name, ...profileLabels(workload) };
}

/** What it shows of all workloads of a profile. */
export function profileLabels(profile: UpstreamGroup['profile']): Omit<WorkloadLabels, 'uid' | 'name'> {
  return {
    workloadName: profile.workloadName,
    workloadType: profile.workloadType,
    namespace: profile.namespace,
    canonicalName: profile.canonicalName,
    canonicalRevision: profile.canonicalRevision,
    clusterId: profile.clusterId,
    region: profile.locality.region,
    zone: profile.locality.zone,
    identity: identityOf(profile),
  };
}

/** What telemetry shows of a service. */
export function serviceLabels({ hostname, name, namespace }: Service): ServiceLabels {
  return { hostname, name, namespace };
}

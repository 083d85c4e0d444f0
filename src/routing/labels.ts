import { identityOf, type Service, type Workload } from '../state/types.ts';
import type { ServiceLabels, WorkloadLabels } from './plan.ts';

/** What telemetry shows of a workload. */
export function workloadLabels(workload: Workload): WorkloadLabels {
  return {
    uid: workload.uid,
    name: workload.name,
    workloadName: workload.workloadName,
    workloadType: workload.workloadType,
    namespace: workload.namespace,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    clusterId: workload.clusterId,
    region: workload.locality.region,
    zone: workload.locality.zone,
    identity: identityOf(workload),
  };
}

/** What telemetry shows of a service. */
export function serviceLabels({ hostname, name, namespace }: Service): ServiceLabels {
  return { hostname, name, namespace };
}

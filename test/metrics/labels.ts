import type { TrafficLabels } from '../../src/metrics/traffic-labels.ts';
import type { WorkloadLabels } from '../../src/routing/plan.ts';

export function workload(name: string, more: Partial<WorkloadLabels> = {}): WorkloadLabels {
  return {
    uid: `Kubernetes//Pod/demo/${name}`,
    name: `${name}-7d596bdf78-67srx`,
    workloadName: name,
    workloadType: 'deployment',
    namespace: 'demo',
    canonicalName: name,
    canonicalRevision: 'latest',
    clusterId: 'Kubernetes',
    region: '',
    zone: '',
    identity: `spiffe://cluster.local/ns/demo/sa/${name}`,
    ...more,
  };
}

/** client → server over a tunnel, as the source sees it. */
export function trafficLabels(more: Partial<TrafficLabels> = {}): TrafficLabels {
  return {
    reporter: 'source',
    source: workload('client'),
    destination: workload('server'),
    service: { hostname: 'server.demo.svc.cluster.local', name: 'server', namespace: 'demo' },
    sourcePrincipal: 'spiffe://cluster.local/ns/demo/sa/client',
    mutualTls: true,
    sourceApp: null,
    isShared: true,
    ...more,
  };
}

import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import type { ServiceDefinition } from '../../src/state/types.ts';

/** A mesh like that of a large cluster: services of equal size over three zones, pods spread over nodes. */
export interface GeneratedMesh {
  readonly services: number;
  readonly workloads: number;
  service(index: number): ServiceDefinition;
  /** Made anew for each call, with texts of its own, as a source that decodes messages does. */
  workload(index: number): WorkloadUpdate;
  vip(index: number): string;
  ip(index: number): string;
  uid(index: number): string;
}

const NAMESPACES = 100;
const PODS_PER_NODE = 100;
const ZONES = ['zone-a', 'zone-b', 'zone-c'];

export function generateMesh(workloads: number, services: number): GeneratedMesh {
  const namespaceOf = (service: number) => `namespace-${service % NAMESPACES}`;
  const hostname = (service: number) => `service-${service}.${namespaceOf(service)}.svc.cluster.local`;
  const name = (index: number) => `service-${index % services}-5d8f9c7b6d-${index.toString(36).padStart(5, 'x')}`;
  const uid = (index: number) => `Kubernetes//Pod/${namespaceOf(index % services)}/${name(index)}`;
  const ip = (index: number) => `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`;
  const vip = (index: number) => `172.${16 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
  return {
    services,
    workloads,
    vip,
    ip,
    uid,
    service: (index) => ({
      name: `service-${index}`,
      namespace: namespaceOf(index),
      hostname: hostname(index),
      vips: [`/${vip(index)}`],
      cidrVips: [],
      ports: { 80: 8080, 443: 8443 },
      subjectAltNames: [],
      waypoint: null,
      weightedWaypoints: [],
      loadBalancer: null,
      ipFamilies: null,
      canonical: true,
      visibility: 'Public',
    }),
    workload: (index) => {
      const service = index % services;
      const node = Math.floor(index / PODS_PER_NODE);
      return {
        workload: {
          uid: uid(index),
          name: name(index),
          namespace: namespaceOf(service),
          trustDomain: 'cluster.local',
          serviceAccount: `account-${service}`,
          network: '',
          workloadIps: [ip(index)],
          hostname: '',
          protocol: 'HBONE',
          networkMode: 'Standard',
          node: `node-${node}`,
          workloadName: `service-${service}`,
          workloadType: 'deployment',
          canonicalName: `service-${service}`,
          canonicalRevision: 'v1',
          clusterId: 'Kubernetes',
          locality: { region: 'region-1', zone: ZONES[node % ZONES.length]!, subzone: '' },
          status: 'Healthy',
          capacity: 1,
          waypoint: null,
          networkGateway: null,
          applicationTunnel: null,
          nativeTunnel: false,
          authorizationPolicies: [],
        },
        services: { [`${namespaceOf(service)}/${hostname(service)}`]: { 80: 8080, 443: 8443 } },
      };
    },
  };
}

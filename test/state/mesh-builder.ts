/** Short ways to say what a test's mesh consists of; everything not said is the default of a small mesh. */
import type { Policy, PolicyMatch } from '../../src/policy/types.ts';
import { EMPTY_MATCH } from '../../src/policy/types.ts';
import type { MeshStore, WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { createMeshState } from '../../src/state/store.ts';
import type { GatewayAddress, PortMap, ServiceDefinition, Workload } from '../../src/state/types.ts';
import type { PodInfo } from '../../src/zds/types.ts';

export interface WorkloadFields extends Partial<Omit<Workload, 'services' | 'name' | 'locality'>> {
  readonly locality?: Partial<Workload['locality']>;
  readonly services?: Record<string, PortMap>;
}

export function workload(name: string, fields: WorkloadFields = {}): WorkloadUpdate {
  const { services = {}, locality = {}, ...rest } = fields;
  const namespace = rest.namespace ?? 'default';
  return {
    workload: {
      uid: `Kubernetes//Pod/${namespace}/${name}`,
      name,
      namespace,
      trustDomain: 'cluster.local',
      serviceAccount: name,
      network: '',
      workloadIps: [],
      hostname: '',
      protocol: 'HBONE',
      networkMode: 'Standard',
      node: 'node-a',
      workloadName: name,
      workloadType: 'deployment',
      canonicalName: name,
      canonicalRevision: 'v1',
      clusterId: 'Kubernetes',
      status: 'Healthy',
      capacity: 1,
      waypoint: null,
      networkGateway: null,
      applicationTunnel: null,
      nativeTunnel: false,
      authorizationPolicies: [],
      ...rest,
      locality: { region: '', zone: '', subzone: '', ...locality },
    },
    services,
  };
}

export function service(name: string, fields: Partial<Omit<ServiceDefinition, 'name'>> = {}): ServiceDefinition {
  const namespace = fields.namespace ?? 'default';
  return {
    name,
    namespace,
    hostname: `${name}.${namespace}.svc.cluster.local`,
    vips: [],
    cidrVips: [],
    ports: { 80: 8080 },
    subjectAltNames: [],
    waypoint: null,
    weightedWaypoints: [],
    loadBalancer: null,
    ipFamilies: null,
    canonical: true,
    visibility: 'Public',
    ...fields,
  };
}

export function policy(name: string, fields: Partial<Omit<Policy, 'name'>> = {}): readonly [string, Policy] {
  const namespace = fields.namespace ?? 'default';
  const made: Policy = {
    name,
    namespace,
    scope: 'Namespace',
    action: 'Deny',
    rules: [],
    dryRun: false,
    unintelligible: null,
    ...fields,
  };
  return [`${namespace}/${name}`, made];
}

/** A policy's rules of one rule with one clause of one match. */
export function match(fields: Partial<PolicyMatch>): Policy['rules'] {
  return [[[{ ...EMPTY_MATCH, ...fields }]]];
}

export function meshOf(...parts: Parameters<MeshStore['apply']>[0][]): MeshStore {
  const mesh = createMeshState({ localNode: 'node-a' });
  for (const part of parts) mesh.apply(part);
  return mesh;
}

export function pod(name: string, namespace = 'default', serviceAccount = name): PodInfo {
  return { uid: `uid-of-${name}`, name, namespace, serviceAccount };
}

export function byAddress(ip: string, hboneMtlsPort = 15008, network = ''): GatewayAddress {
  return { destination: { kind: 'address', network, ip }, hboneMtlsPort };
}

export function byHostname(hostname: string, namespace = 'default', hboneMtlsPort = 15008): GatewayAddress {
  return { destination: { kind: 'hostname', namespace, hostname }, hboneMtlsPort };
}

import type { Policy } from '../policy/types.ts';
import type { MeshState } from './mesh-state.ts';
import {
  type Endpoint,
  formatGatewayDestination,
  type GatewayAddress,
  type Service,
  type ServiceKey,
  type Workload,
} from './types.ts';

/** A part of the config dump; the JSON form `istioctl ztunnel-config` reads. */
export interface MeshDump {
  readonly workloads: readonly Json[];
  readonly services: readonly Json[];
  readonly policies: readonly Json[];
  readonly stagedServices: Readonly<Record<ServiceKey, Readonly<Record<string, Json>>>>;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * The mesh state as `/config_dump` shows it (spec §14.4): workloads sorted by uid, services by hostname, policies by key,
 * defaults left out.
 */
export function dumpMesh(mesh: MeshState): MeshDump {
  return {
    workloads: sortedBy([...mesh.workloads()], ({ uid }) => uid).map(dumpWorkload),
    services: sortedBy([...mesh.services()], ({ hostname, namespace }) => `${hostname}/${namespace}`).map(dumpService),
    policies: sortedBy([...mesh.policies()], ([key]) => key).map(([, policy]) => dumpPolicy(policy)),
    stagedServices: Object.fromEntries(
      sortedBy([...mesh.stagedEndpoints()], ([key]) => key).map(([key, endpoints]) => [key, dumpEndpoints(endpoints)]),
    ),
  };
}

function dumpWorkload(workload: Workload): Json {
  const { region, zone, subzone } = workload.locality;
  return {
    workloadIps: workload.workloadIps,
    ...given('waypoint', workload.waypoint && dumpGateway(workload.waypoint)),
    ...given('networkGateway', workload.networkGateway && dumpGateway(workload.networkGateway)),
    protocol: workload.protocol,
    networkMode: workload.networkMode,
    ...given('uid', workload.uid),
    name: workload.name,
    namespace: workload.namespace,
    ...given('trustDomain', workload.trustDomain),
    ...given('serviceAccount', workload.serviceAccount),
    ...given('network', workload.network),
    ...given('workloadName', workload.workloadName),
    ...given('workloadType', workload.workloadType),
    ...given('canonicalName', workload.canonicalName),
    ...given('canonicalRevision', workload.canonicalRevision),
    ...given('hostname', workload.hostname),
    ...given('node', workload.node),
    ...given('nativeTunnel', workload.nativeTunnel),
    ...given('applicationTunnel', workload.applicationTunnel),
    ...given('authorizationPolicies', workload.authorizationPolicies),
    status: workload.status,
    clusterId: workload.clusterId,
    ...given('locality', region + zone + subzone === '' ? null : workload.locality),
    ...given('services', workload.services),
    capacity: workload.capacity,
  };
}

function dumpService(service: Service): Json {
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.vips,
    ...given('cidrVips', service.cidrVips),
    ports: service.ports,
    endpoints: dumpEndpoints(service.endpoints),
    subjectAltNames: service.subjectAltNames,
    ...given('waypoint', service.waypoint && dumpGateway(service.waypoint)),
    ...given(
      'weightedWaypoints',
      service.weightedWaypoints.map(({ destination, weight }) => ({ destination: dumpGateway(destination), weight })),
    ),
    ...given('loadBalancer', service.loadBalancer),
    ...given('ipFamilies', service.ipFamilies),
    canonical: service.canonical,
    visibility: service.visibility,
  };
}

function dumpPolicy(policy: Policy): Json {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: policy.scope,
    action: policy.action,
    rules: policy.rules.map((clauses) => clauses.map((matches) => matches.map(withoutEmptyLists))),
    dryRun: policy.dryRun,
    ...given('unintelligible', policy.unintelligible),
  };
}

function dumpEndpoints(endpoints: ReadonlyMap<string, Endpoint>): Readonly<Record<string, Json>> {
  return Object.fromEntries(
    sortedBy([...endpoints.values()], ({ workloadUid }) => workloadUid).map((endpoint) => [
      endpoint.workloadUid,
      { workloadUid: endpoint.workloadUid, port: endpoint.port, status: endpoint.status },
    ]),
  );
}

function dumpGateway({ destination, hboneMtlsPort }: GatewayAddress): Json {
  return { destination: formatGatewayDestination(destination), hboneMtlsPort };
}

function withoutEmptyLists(match: object): Json {
  return Object.fromEntries(Object.entries(match).filter(([, values]) => (values as unknown[]).length > 0));
}

/** The field, unless it has its default: null, '', false or no elements. */
function given(name: string, value: string | boolean | object | null): Json {
  const empty = value === null || value === '' || value === false || (Array.isArray(value) && value.length === 0);
  return empty ? {} : { [name]: value };
}

/** By code unit, not by locale, so that the order is the same everywhere. */
function sortedBy<T>(items: T[], key: (item: T) => string): T[] {
  return items.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}

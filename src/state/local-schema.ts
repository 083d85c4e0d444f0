/** What the local file may say (spec §9.8): the incumbent's field names, defaults and required fields. */
import { canonicalIp, formatCidr, parseCidr, parsePort } from '../netns/address.ts';
import type { Policy, PolicyMatch, ServiceAccountMatch, StringMatch } from '../policy/types.ts';
import type { WorkloadUpdate } from './mesh-state.ts';
import {
  choice,
  dictionary,
  flag,
  INVALID,
  integer,
  isNull,
  list,
  mapped,
  mismatch,
  object,
  optional,
  parsed,
  type Reader,
  required,
  text,
} from './schema.ts';
import {
  type ApplicationTunnel,
  type CidrVip,
  type Endpoint,
  type GatewayAddress,
  type GatewayDestination,
  type LoadBalancer,
  type Locality,
  networkAddress,
  type PortMap,
  type ServiceDefinition,
  serviceKey,
  type WeightedWaypoint,
} from './types.ts';

export interface LocalFile {
  readonly workloads: readonly WorkloadUpdate[];
  readonly services: readonly LocalService[];
  readonly policies: readonly Policy[];
}

/** A service may bring endpoints of its own, besides those its workloads name. */
export interface LocalService {
  readonly definition: ServiceDefinition;
  readonly endpoints: Readonly<Record<string, Endpoint>>;
}

const port = integer(1, 65535);
const weight = integer(0, 0xffff_ffff);
const health = choice('Healthy', 'Unhealthy');
const ip = parsed('an IP address', canonicalIp);
const block = parsed('an IP address, or a block as 10.0.0.0/8', (given) => {
  const cidr = parseCidr(given);
  return cidr && formatCidr(cidr);
});

/** A target of 0 is a port that has a name, which each endpoint resolves for itself. */
const ports: Reader<PortMap> = dictionary(
  'ports from 1 to 65535',
  (key) => (parsePort(key) ? key : null),
  integer(0, 65535),
);

const gatewayDestination: Reader<GatewayDestination> = parsed('network/IP or namespace/hostname', (given) => {
  const slash = given.indexOf('/');
  if (slash < 0) return null;
  const [before, after] = [given.slice(0, slash), given.slice(slash + 1)];
  const address = canonicalIp(after);
  if (address !== null) return { kind: 'address', network: before, ip: address };
  return after === '' || after.includes('/') ? null : { kind: 'hostname', namespace: before, hostname: after };
});

const gateway: Reader<GatewayAddress> = object<GatewayAddress>({
  destination: required(gatewayDestination),
  hboneMtlsPort: required(port),
});

const vip = parsed('network/IP, where the network may be empty as in /10.96.0.10', (given) => {
  const slash = given.lastIndexOf('/');
  const address = slash < 0 ? null : canonicalIp(given.slice(slash + 1));
  return address && networkAddress(given.slice(0, slash), address);
});

const namespacedHostname = (key: string) => (/^[^/]*\/[^/]+$/.test(key) ? key : null);

const workload: Reader<WorkloadUpdate> = mapped(
  object<WorkloadUpdate['workload'] & Pick<WorkloadUpdate, 'services'>>({
    uid: optional(text, ''),
    name: optional(text, ''),
    namespace: required(text),
    trustDomain: optional(text, ''),
    serviceAccount: optional(text, ''),
    network: optional(text, ''),
    workloadIps: required(list(ip)),
    hostname: optional(text, ''),
    protocol: optional(choice('HBONE', 'TCP'), 'TCP'),
    networkMode: optional(choice('Standard', 'HostNetwork'), 'Standard'),
    node: optional(text, ''),
    workloadName: optional(text, ''),
    workloadType: optional(text, ''),
    canonicalName: optional(text, ''),
    canonicalRevision: optional(text, ''),
    clusterId: optional(text, ''),
    locality: optional(
      object<Locality>({ region: optional(text, ''), zone: optional(text, ''), subzone: optional(text, '') }),
      { region: '', zone: '', subzone: '' },
    ),
    status: optional(health, 'Healthy'),
    capacity: optional(weight, 1),
    waypoint: optional<GatewayAddress | null>(gateway, null),
    networkGateway: optional<GatewayAddress | null>(gateway, null),
    applicationTunnel: optional<ApplicationTunnel | null>(
      object<ApplicationTunnel>({
        protocol: required(choice('NONE', 'PROXY')),
        port: optional<number | null>(port, null),
      }),
      null,
    ),
    nativeTunnel: optional(flag, false),
    authorizationPolicies: optional(list(text), []),
    services: required(dictionary('namespace/hostname', namespacedHostname, ports)),
  }),
  ({ services, ...rest }) => ({ workload: rest, services }),
);

const service: Reader<LocalService> = mapped(
  object<ServiceDefinition & Pick<LocalService, 'endpoints'>>({
    name: required(text),
    namespace: required(text),
    hostname: required(text),
    vips: required(list(vip)),
    cidrVips: optional(list(object<CidrVip>({ network: required(text), cidr: required(block) })), []),
    ports: required(ports),
    subjectAltNames: optional(list(text), []),
    waypoint: optional<GatewayAddress | null>(gateway, null),
    weightedWaypoints: optional(
      list(object<WeightedWaypoint>({ destination: required(gateway), weight: required(weight) })),
      [],
    ),
    loadBalancer: optional<LoadBalancer | null>(
      object<LoadBalancer>({
        routingPreferences: required(list(choice('Region', 'Zone', 'Subzone', 'Node', 'Cluster', 'Network'))),
        mode: required(choice('Standard', 'Strict', 'Failover', 'Passthrough')),
        healthPolicy: required(choice('OnlyHealthy', 'AllowAll')),
      }),
      null,
    ),
    ipFamilies: optional<ServiceDefinition['ipFamilies']>(choice('Dual', 'IPv4', 'IPv6'), null),
    canonical: optional(flag, false),
    visibility: optional(choice('Public', 'Namespace'), 'Public'),
    endpoints: optional(
      dictionary(
        'workload uids',
        (key) => key,
        object<Endpoint>({ workloadUid: required(text), port: required(ports), status: required(health) }),
      ),
      {},
    ),
  }),
  ({ endpoints, ...definition }) => ({ definition, endpoints }),
);

const stringMatch: Reader<StringMatch> = (value, path, problems) => {
  const accepts = '{Exact: text}, {Prefix: text}, {Suffix: text}, {Presence: []}';
  const entry = value.kind === 'map' && value.entries.length === 1 ? value.entries[0]! : null;
  if (entry === null) return mismatch(value, path, problems, accepts);
  const place = `${path}.${entry.key}`;
  if (entry.key === 'Presence') {
    const isEmpty = entry.value.kind === 'list' && entry.value.items.length === 0;
    return isEmpty ? { Presence: [] } : mismatch(entry.value, place, problems, '[]');
  }
  if (entry.key !== 'Exact' && entry.key !== 'Prefix' && entry.key !== 'Suffix') {
    return problems(entry.keyAt, place, `unknown kind of match; accepted: ${accepts}`);
  }
  const wanted = text(entry.value, place, problems);
  return wanted === INVALID ? INVALID : ({ [entry.key]: wanted } as StringMatch);
};

const accountMatch = object<ServiceAccountMatch>({ namespace: required(text), serviceAccount: required(text) });

const policy: Reader<Policy> = mapped(
  object<Omit<Policy, 'unintelligible'>>({
    name: required(text),
    namespace: required(text),
    scope: required(choice('Global', 'Namespace', 'WorkloadSelector')),
    action: required(choice('Allow', 'Deny')),
    dryRun: required(flag),
    rules: required(
      list(
        list(
          list(
            object<PolicyMatch>({
              namespaces: optional(list(stringMatch), []),
              notNamespaces: optional(list(stringMatch), []),
              serviceAccounts: optional(list(accountMatch), []),
              notServiceAccounts: optional(list(accountMatch), []),
              principals: optional(list(stringMatch), []),
              notPrincipals: optional(list(stringMatch), []),
              sourceIps: optional(list(block), []),
              notSourceIps: optional(list(block), []),
              destinationIps: optional(list(block), []),
              notDestinationIps: optional(list(block), []),
              destinationPorts: optional(list(integer(0, 65535)), []),
              notDestinationPorts: optional(list(integer(0, 65535)), []),
            }),
          ),
        ),
      ),
    ),
  }),
  (given) => ({ ...given, unintelligible: null }),
);

/** A heading with nothing below it is refused: what is to follow may not have been written yet. */
const sections = object<LocalFile>({
  workloads: optional(
    list(workload, (each) => each.workload.uid),
    [],
  ),
  services: optional(
    list(service, (each) => serviceKey(each.definition)),
    [],
  ),
  policies: optional(
    list(policy, (each) => policyKey(each)),
    [],
  ),
});

/** The whole file; an empty one is an empty mesh. */
export const localFile: Reader<LocalFile> = (value, path, problems) =>
  isNull(value) ? { workloads: [], services: [], policies: [] } : sections(value, path, problems);

/** The key under which workloads list a policy. */
export function policyKey({ namespace, name }: Policy): string {
  return `${namespace}/${name}`;
}

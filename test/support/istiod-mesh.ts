/** Mesh state of the tests in the form that a control plane sends. */
import { isIPv4 } from 'node:net';
import type { Changes } from './istiod.ts';
import type { Mesh } from './mesh.ts';
import type { Json } from './xds-schema.ts';

/** What a local file says, as addresses and policies by name. */
export function asResources(mesh: Mesh): { addresses: Changes; policies: Changes } {
  return {
    addresses: Object.fromEntries([
      ...(mesh.workloads ?? []).map((each) => [each.uid, { workload: asWorkload(each) }]),
      ...(mesh.services ?? []).map((each) => [`${each.namespace}/${each.hostname}`, { service: asService(each) }]),
    ]),
    policies: Object.fromEntries(
      (mesh.policies ?? []).map((each) => [`${each.namespace}/${each.name}`, asAuthorization(each)]),
    ),
  };
}

function asWorkload({ workloadIps, protocol, services, workloadType, ...rest }: Json): Json {
  const ports = Object.entries((services ?? {}) as Record<string, Record<string, number>>);
  return {
    ...rest,
    addresses: (workloadIps as string[]).map(ipBytes),
    tunnelProtocol: protocol === 'HBONE' ? 'HBONE' : 'NONE',
    workloadType: String(workloadType).toUpperCase(),
    services: Object.fromEntries(ports.map(([key, map]) => [key, { ports: asPorts(map) }])),
  };
}

function asService({ vips, ports, ...rest }: Json): Json {
  return {
    ...rest,
    addresses: (vips as string[]).map((vip) => ({ network: '', address: ipBytes(vip.slice(1)) })),
    ports: asPorts(ports as Record<string, number>),
  };
}

const SCOPES: Json = { Global: 'GLOBAL', Namespace: 'NAMESPACE', WorkloadSelector: 'WORKLOAD_SELECTOR' };

/** Conditions on ports and principals only. */
function asAuthorization({ name, namespace, scope, action, rules }: Json): Json {
  const asMatch = ({
    destinationPorts,
    principals,
  }: {
    destinationPorts?: number[];
    principals?: { Exact: string }[];
  }) => ({
    destinationPorts: destinationPorts ?? [],
    principals: (principals ?? []).map(({ Exact }) => ({ exact: Exact })),
  });
  return {
    name,
    namespace,
    scope: SCOPES[scope as string],
    action: String(action).toUpperCase(),
    rules: (rules as Parameters<typeof asMatch>[0][][][]).map((clauses) => ({
      clauses: clauses.map((matches) => ({ matches: matches.map(asMatch) })),
    })),
  };
}

function asPorts(ports: Record<string, number>): Json[] {
  return Object.entries(ports).map(([servicePort, targetPort]) => ({ servicePort: Number(servicePort), targetPort }));
}

export function ipBytes(ip: string): Buffer {
  if (isIPv4(ip)) return Buffer.from(ip.split('.').map(Number));
  const [head, tail] = ip.split('::').map((part) => (part === '' ? [] : part.split(':'))) as [string[], string[]?];
  const groups = tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail];
  return Buffer.from(groups.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]));
}

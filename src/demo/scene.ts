import { stringify } from 'yaml';
import type { Pod } from './pod-network.ts';

/** Who takes part in the demo: a small shop. */
export interface Actor {
  readonly name: string;
  readonly serviceAccount: string;
  /** Its traffic goes through the agent. */
  readonly enrolled: boolean;
  /** It runs a web server on WEB_PORT. */
  readonly serves: boolean;
}

export const actors: readonly Actor[] = [
  { name: 'frontend', serviceAccount: 'frontend', enrolled: true, serves: false },
  { name: 'api-1', serviceAccount: 'api', enrolled: true, serves: true },
  { name: 'api-2', serviceAccount: 'api', enrolled: true, serves: true },
  { name: 'guest', serviceAccount: 'guest', enrolled: true, serves: false },
  { name: 'outsider', serviceAccount: 'outsider', enrolled: false, serves: true },
];

export const NAMESPACE = 'shop';
export const NODE = 'demo-node';
export const WEB_PORT = 8080;
export const SERVICE = { hostname: `api.${NAMESPACE}.svc.cluster.local`, ip: '10.96.0.10', port: 80 } as const;
export const POLICY = 'deny-guest';

export function identityOf(serviceAccount: string): string {
  return `spiffe://cluster.local/ns/${NAMESPACE}/sa/${serviceAccount}`;
}

/** The mesh as a local file: five workloads, one service with two endpoints, one policy that denies. */
export function meshFile(pods: ReadonlyMap<string, Pod>): string {
  const workloads = actors.map(({ name, serviceAccount, enrolled }) => {
    const { ipv4, ipv6 } = pods.get(name)!;
    const isEndpoint = serviceAccount === 'api';
    return {
      uid: `demo//Pod/${NAMESPACE}/${name}`,
      name,
      namespace: NAMESPACE,
      serviceAccount,
      trustDomain: 'cluster.local',
      workloadIps: ipv6 === null ? [ipv4] : [ipv4, ipv6],
      protocol: enrolled ? 'HBONE' : 'TCP',
      node: NODE,
      clusterId: 'demo',
      workloadName: serviceAccount,
      workloadType: 'deployment',
      canonicalName: serviceAccount,
      canonicalRevision: 'v1',
      authorizationPolicies: isEndpoint ? [`${NAMESPACE}/${POLICY}`] : [],
      services: isEndpoint ? { [`${NAMESPACE}/${SERVICE.hostname}`]: { [SERVICE.port]: WEB_PORT } } : {},
    };
  });
  return stringify({
    workloads,
    services: [
      {
        name: 'api',
        namespace: NAMESPACE,
        hostname: SERVICE.hostname,
        vips: [`/${SERVICE.ip}`],
        ports: { [SERVICE.port]: WEB_PORT },
      },
    ],
    policies: [
      {
        name: POLICY,
        namespace: NAMESPACE,
        scope: 'WorkloadSelector',
        action: 'Deny',
        dryRun: false,
        rules: [[[{ principals: [{ Exact: identityOf('guest').slice('spiffe://'.length) }] }]]],
      },
    ],
  });
}

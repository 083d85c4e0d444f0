/** What `istio.workload.Address` says (spec §9.7), before it is encoded. Addresses are canonical text. */
import type { Locality } from '../objects/node.ts';

export interface WorkloadMessage {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly string[];
  readonly hostname: string;
  readonly network: string;
  readonly tunnel: Tunnel;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly waypoint: GatewayAddress | null;
  readonly networkGateway: GatewayAddress | null;
  readonly node: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  /** Left at its default, deployment, for what is no pod. */
  readonly isPod: boolean;
  readonly workloadName: string;
  readonly applicationTunnel: ApplicationTunnel | null;
  /** By `namespace/hostname`, in any order. */
  readonly services: ReadonlyMap<string, readonly TargetPort[]>;
  readonly policies: readonly string[];
  readonly isHealthy: boolean;
  readonly clusterId: string;
  readonly locality: Locality | null;
  readonly hostNetwork: boolean;
  /** Null for 1. */
  readonly capacity: number | null;
}

/** `native`: the workload speaks HBONE itself. */
export type Tunnel = 'none' | 'hbone' | 'native';

export interface TargetPort {
  readonly port: number;
  /** 0 when it differs from pod to pod. */
  readonly target: number;
}

export interface ServiceMessage {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly NetworkAddress[];
  readonly ports: readonly (TargetPort & { readonly protocol: AppProtocol })[];
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | null;
  readonly weightedWaypoints: readonly { readonly destination: GatewayAddress; readonly weight: number }[];
  readonly loadBalancing: LoadBalancing | null;
  readonly ipFamilies: IpFamilies;
  readonly isCanonical: boolean;
  readonly ingressUseWaypoint: boolean;
  readonly visibility: Visibility;
}

export type Visibility = 'Public' | 'Namespace';

export interface NetworkAddress {
  readonly network: string;
  readonly ip: string;
  /** Of a block; null for one address. */
  readonly length: number | null;
}

export interface GatewayAddress {
  readonly destination:
    | { readonly kind: 'hostname'; readonly namespace: string; readonly hostname: string }
    | { readonly kind: 'address'; readonly network: string; readonly ip: string };
  readonly port: number;
}

export interface ApplicationTunnel {
  readonly protocol: 'NONE' | 'PROXY';
  /** 0 for none. */
  readonly port: number;
}

export interface LoadBalancing {
  readonly preference: readonly Scope[];
  readonly mode: keyof typeof MODES;
  readonly healthPolicy: 'OnlyHealthy' | 'AllowAll';
}

// The numbers of the enumerations.
export const MODES = { unspecified: 0, strict: 1, failover: 2, passthrough: 3 } as const;
export const SCOPES = { region: 1, zone: 2, subzone: 3, node: 4, cluster: 5, network: 6 } as const;
export const APP_PROTOCOLS = { unknown: 0, http11: 1, http2: 2, grpc: 3, tcp: 4, tls: 5 } as const;
export const IP_FAMILIES = { automatic: 0, ipv4: 1, ipv6: 2, dual: 3 } as const;
export type Scope = keyof typeof SCOPES;
export type AppProtocol = keyof typeof APP_PROTOCOLS;
export type IpFamilies = keyof typeof IP_FAMILIES;

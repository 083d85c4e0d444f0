import type { DumpedCertificates } from '../identity/dump.ts';
import type { Refusal } from '../policy/types.ts';
import type { EndpointHealth } from '../routing/balancer.ts';
import type { MeshDump } from '../state/dump.ts';
import type { XdsStatus } from '../xds/client.ts';
import type { PodInfo } from '../zds/types.ts';

/** What `/config_dump` answers (spec §14.4); `istioctl ztunnel-config` reads it by these names. */
export interface ConfigDump {
  readonly workloads: MeshDump['workloads'];
  readonly services: MeshDump['services'];
  readonly policies: MeshDump['policies'];
  readonly stagedServices: MeshDump['stagedServices'];
  readonly staticConfig: StaticConfig;
  readonly version: VersionDump;
  readonly config: Readonly<Record<string, unknown>>;
  readonly certificates: readonly DumpedCertificates[];
  readonly workloadState: Readonly<Record<string, DumpedPod>>;
  /** Why policies deny what they apply to; left out when all are in force. `istioctl` ignores it. */
  readonly policyRefusals?: readonly Refusal[];
  /** The stream of the control plane; left out when there is none. `istioctl` ignores it. */
  readonly xds?: XdsStatus;
}

/** Where each part comes from. */
export interface ConfigDumpSources {
  /** `dumpMesh` */
  readonly mesh: MeshDump;
  /** What the local file holds, as it stands there. */
  readonly staticConfig: StaticConfig;
  readonly version: VersionDump;
  /** `dumpConfig` */
  readonly config: Readonly<Record<string, unknown>>;
  /** `dumpCertificates` */
  readonly certificates: readonly DumpedCertificates[];
  readonly pods: Iterable<PodState>;
  readonly policyRefusals?: readonly Refusal[];
  /** Left out without a control plane. */
  readonly xds?: XdsStatus | undefined;
}

export interface StaticConfig {
  readonly workloads: readonly unknown[];
  readonly policies: readonly unknown[];
  readonly services: readonly unknown[];
}

/** The incumbent's keys, but for its compiler's version. */
export interface VersionDump {
  readonly version: string;
  readonly gitRevision: string;
  readonly nodeVersion: string;
  readonly buildProfile: string;
  readonly buildStatus: string;
  /** `ISTIO_META_ISTIO_VERSION`, or `unknown` */
  readonly istioVersion: string;
  readonly cryptoProvider: string;
}

/** An enrolled pod as the agent serves it. */
export interface PodState {
  readonly uid: string;
  readonly info: Pick<PodInfo, 'name' | 'namespace' | 'serviceAccount'>;
  /** Pending pods have no connections: their sockets could not be made (yet). */
  readonly serving: { readonly kind: 'pending' } | ({ readonly kind: 'up' } & PodTraffic);
}

export interface PodTraffic {
  readonly inbound: readonly InboundConnection[];
  readonly outbound: readonly OutboundConnection[];
  readonly listeners: readonly PodListener[];
  readonly unhealthyEndpoints: readonly UnhealthyEndpoint[];
}

/** An endpoint that one worker could not reach for this pod. `istioctl` ignores it. */
export interface UnhealthyEndpoint extends EndpointHealth {
  readonly worker: number;
}

export interface InboundConnection {
  /** For `/explain?connection=`; `istioctl` ignores it. */
  readonly id?: string;
  /** `ip:port`, as all addresses here. */
  readonly src: string;
  /** The service the client says it addressed; null when it did not say. */
  readonly originalDst: string | null;
  readonly actualDst: string;
  readonly protocol: 'HBONE' | 'TCP';
}

export interface OutboundConnection {
  readonly id?: string;
  readonly src: string;
  readonly originalDst: string;
  /** The next hop. */
  readonly actualDst: string;
  readonly protocol: 'TCP' | 'HBONE' | 'DOUBLEHBONE';
}

/** One listening socket in a pod, of which each worker has its own. `istioctl` ignores it. */
export interface PodListener {
  readonly address: string;
  readonly port: number;
  /** Number of the worker. */
  readonly worker: number;
  /** Names of the filters a connection passes, in order. */
  readonly filters: readonly string[];
}

export interface DumpedPod {
  readonly state: 'Pending' | 'Up';
  readonly connections?: Pick<PodTraffic, 'inbound' | 'outbound'>;
  readonly info: PodState['info'];
  readonly listeners?: readonly PodListener[];
  /** Left out when all can be reached. */
  readonly unhealthyEndpoints?: readonly UnhealthyEndpoint[];
}

export function buildConfigDump(sources: ConfigDumpSources): ConfigDump {
  const { workloads, services, policies, stagedServices } = sources.mesh;
  const { staticConfig, version, config, certificates } = sources;
  const pods = [...sources.pods].sort((a, b) => (a.uid < b.uid ? -1 : 1));
  return {
    workloads,
    services,
    policies,
    stagedServices,
    staticConfig,
    version,
    config,
    certificates: [...certificates].sort((a, b) => (a.identity < b.identity ? -1 : 1)),
    workloadState: Object.fromEntries(pods.map((pod) => [pod.uid, dumpPod(pod)])),
    ...((sources.policyRefusals?.length ?? 0) === 0 ? {} : { policyRefusals: sources.policyRefusals! }),
    ...(sources.xds === undefined ? {} : { xds: sources.xds }),
  };
}

/** The version of a build, with that of the libraries it runs on. */
export function describeVersion(build: Omit<VersionDump, 'nodeVersion' | 'cryptoProvider'>): VersionDump {
  const { node, openssl } = process.versions;
  return { ...build, nodeVersion: node, cryptoProvider: `tls-openssl-${openssl}` };
}

function dumpPod({ info, serving }: PodState): DumpedPod {
  const { name, namespace, serviceAccount } = info;
  const pod = { name, namespace, serviceAccount };
  if (serving.kind === 'pending') return { state: 'Pending', info: pod };
  const { inbound, outbound, listeners, unhealthyEndpoints } = serving;
  return {
    state: 'Up',
    connections: { inbound, outbound },
    info: pod,
    listeners,
    ...(unhealthyEndpoints.length === 0 ? {} : { unhealthyEndpoints }),
  };
}

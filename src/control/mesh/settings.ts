import type { LabelSelector } from '../../kube/label-selector.ts';

export interface MeshSettings {
  readonly clusterId: string;
  /** Of hostnames: `<service>.<namespace>.svc.<suffix>`. */
  readonly domainSuffix: string;
  readonly trustDomain: string;
  /** Policies of this namespace are for the whole mesh. */
  readonly rootNamespace: string;
  /** Its label `topology.istio.io/network` names the network of the cluster. */
  readonly systemNamespace: string;
  /** Objects labelled for another revision are left to it; "" for one that takes all. */
  readonly revision: string;
  /** Whether the workloadSelector of a ServiceEntry selects pods. */
  readonly serviceEntriesSelectPods: boolean;
  /** Whether the selector of a Service selects WorkloadEntries. */
  readonly servicesSelectWorkloadEntries: boolean;
  /** Whether hosts of ServiceEntries without addresses get some. */
  readonly allocateAddresses: boolean;
  /** Blocks that they come from. */
  readonly ipv4Pool: string;
  readonly ipv6Pool: string;
  /** Who sees the services of ServiceEntries; null: everybody, and their status says nothing of it. */
  readonly serviceEntryVisibility: ServiceEntryVisibility | null;
  /** Whether every namespace has an object, as in Kubernetes: the labels of one that is not known are still to come. */
  readonly namespacesHaveObjects: boolean;
  /** Whether policies annotated as dry run are sent, to be logged. */
  readonly allowDryRun: boolean;
}

/** What istiod has without a word in its configuration. */
export const DEFAULT_MESH_SETTINGS: MeshSettings = {
  clusterId: 'Kubernetes',
  domainSuffix: 'cluster.local',
  trustDomain: 'cluster.local',
  rootNamespace: 'istio-system',
  systemNamespace: 'istio-system',
  revision: '',
  serviceEntriesSelectPods: true,
  servicesSelectWorkloadEntries: true,
  allocateAddresses: true,
  ipv4Pool: '240.240.0.0/16',
  ipv6Pool: '2001:2::/48',
  serviceEntryVisibility: null,
  namespacesHaveObjects: false,
  allowDryRun: false,
};

/** The first rule whose selectors all match the labels of the entry's namespace decides. */
export interface ServiceEntryVisibility {
  readonly rules: readonly { readonly namespaces: LabelSelector; readonly visibility: Visibility }[];
  readonly otherwise: Visibility;
}

/** `None`: not published at all. */
export type Visibility = 'Public' | 'Namespace' | 'None';

/** Sources → workloads. */
import type { EndpointSlice } from '../objects/endpoint-slice.ts';
import { keyOf, type Labels } from '../objects/metadata.ts';
import type { Pod } from '../objects/pod.ts';
import { type Condition, VISIBILITY_APPLIED, WAYPOINT_MISSING } from '../objects/reported-conditions.ts';
import type { EntryEndpoint, ServiceEntry } from '../objects/service-entry.ts';
import type { WorkloadEntry } from '../objects/workload-entry.ts';
import { addressOfGateway, type NetworkGateway } from './gateway-registry.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { ApplicationTunnel, GatewayAddress, WorkloadMessage } from './messages.ts';
import type { PublishedService } from './published-services.ts';
import type { MeshSettings } from './settings.ts';
import type { Source } from './sources.ts';
import { bindingOf, conditionsOf } from './waypoint-binding.ts';
import { attachmentOf, type Surroundings } from './waypoints.ts';
import {
  endpointUid,
  messageOfNetworkGateway,
  messageOfPod,
  messageOfServiceEntryEndpoint,
  messageOfWorkloadEntry,
  messagesOfEndpointSlice,
  type WorkloadContext,
} from './workload-messages.ts';

export interface DerivedWorkloads {
  /** Of the workloads, in their order. */
  readonly names: readonly string[];
  /** Made one by one, of what there is at the time of the derivation: a ServiceEntry may have tens of thousands. */
  readonly workloads: Iterable<WorkloadMessage>;
  /** Of the object: of a WorkloadEntry, or a ServiceEntry. */
  readonly conditions: readonly Condition[];
}

export interface WorkloadDerivation {
  derive(source: Source, around: Surroundings): DerivedWorkloads;
  /** The gateways themselves. */
  gateways(): WorkloadMessage[];
  /** By what workloads of other networks are reached from now on; whether that is another way than before. */
  setGateways(gateways: readonly NetworkGateway[]): boolean;
}

export function createWorkloadDerivation(objects: MeshObjects, settings: MeshSettings): WorkloadDerivation {
  const { clusterId } = settings;
  const trustDomain = settings.trustDomain === 'cluster.local' ? '' : settings.trustDomain;
  let gateways: readonly NetworkGateway[] = [];
  let gatewayByNetwork = new Map<string, GatewayAddress>();

  function contextOf(network: string, more: Partial<WorkloadContext>): WorkloadContext {
    return {
      clusterId,
      trustDomain,
      network,
      services: [],
      policies: [],
      waypoint: null,
      applicationTunnel: null,
      networkGateway: gatewayByNetwork.get(network) ?? null,
      ...more,
    };
  }

  function ofPod(pod: Pod, around: Surroundings): DerivedWorkloads {
    const { namespace, labels } = pod;
    const { conditions: _, ...binding } = bindingOfWorkload(namespace, labels, around);
    const context = contextOf(objects.network, {
      services: servicesOfPod(pod),
      policies: objects.policies.keysOf(namespace, labels),
      ...binding,
    });
    const message = messageOfPod(pod, objects.locality(pod.node), context);
    return derived(message === null ? [] : [message]);
  }

  function servicesOfPod(pod: Pod): PublishedService[] {
    const selecting = objects
      .servicesSelecting(pod.namespace, pod.labels)
      .filter(({ kind }) => kind === 'Service' || settings.serviceEntriesSelectPods);
    const hostnames = new Set(selecting.map(({ hostname }) => hostname));
    for (const { object: slice } of objects.sources.slicesWith(keyOf(pod))) {
      if (slice === null || slice.pods.get(keyOf(pod)) !== pod.uid) continue;
      const service = serviceOfSlice(slice);
      if (service === null || hostnames.has(service.hostname)) continue;
      hostnames.add(service.hostname);
      selecting.push(service);
    }
    return selecting;
  }

  function serviceOfSlice({ namespace, service }: EndpointSlice): PublishedService | null {
    const found = objects.services.get(`${namespace}/${service}.${namespace}.svc.${settings.domainSuffix}`);
    return found?.kind === 'Service' ? found : null;
  }

  function ofWorkloadEntry(entry: WorkloadEntry, around: Surroundings): DerivedWorkloads {
    const { namespace, labels, endpoint } = entry;
    const { conditions, ...binding } = bindingOfWorkload(namespace, labels, around);
    const services = objects
      .servicesSelecting(namespace, labels)
      .filter(({ kind }) => kind === 'ServiceEntry' || settings.servicesSelectWorkloadEntries);
    const policies = objects.policies.keysOf(namespace, labels);
    const context = contextOf(endpoint.network || objects.network, { services, policies, ...binding });
    return derived([messageOfWorkloadEntry(entry, context)], conditions);
  }

  function ofServiceEntry(entry: ServiceEntry, around: Surroundings): DerivedWorkloads {
    const { namespace, labels } = entry;
    const services = entry.hosts.flatMap((host) => {
      const service = objects.services.get(`${namespace}/${host}`);
      return service?.object === entry ? [service] : [];
    });
    if (services.length === 0) return NOTHING;
    const policies = objects.policies.keysOf(namespace, labels);
    const planned = new Map<string, PlannedEndpoint>();
    const plan = (endpoint: EntryEndpoint, context: WorkloadContext) => {
      // Endpoints that share an address share a name: the first of them is the one.
      const uid = endpointUid(clusterId, entry, endpoint.address);
      if (!planned.has(uid)) planned.set(uid, { endpoint, context });
    };
    /** By labels and network: few, for many endpoints. */
    const contexts = new Map<Labels, Map<string, WorkloadContext>>();
    for (const endpoint of entry.endpoints) {
      const { labels } = endpoint;
      const network = endpoint.network || objects.network;
      const byNetwork = contexts.get(labels) ?? new Map<string, WorkloadContext>();
      contexts.set(labels, byNetwork);
      let context = byNetwork.get(network);
      if (context === undefined) {
        const { waypoint } = bindingOfWorkload(namespace, labels, around);
        context = contextOf(network, { services, policies, waypoint });
        byNetwork.set(network, context);
      }
      plan(endpoint, context);
    }
    if (entry.endpoints.length === 0 && !entry.hasWorkloadSelector && RESOLVED.includes(entry.resolution)) {
      for (const service of services) {
        const context = contextOf(objects.network, { services: [service], policies });
        plan({ ...IMPLICIT_ENDPOINT, address: service.hostname }, context);
      }
    }
    return {
      names: [...planned.keys()],
      workloads: messagesOf(entry, planned.values()),
      conditions: conditionsOfEntry(entry, services[0]!, around),
    };
  }

  function conditionsOfEntry(entry: ServiceEntry, { visibility }: PublishedService, around: Surroundings): Condition[] {
    const { namespace, labels, annotations } = entry;
    const isLocal = visibility === 'Namespace';
    const binding = bindingOf({ kind: 'service', namespace, labels, isLocal }, annotations.canaryWeight, around);
    const conditions = [...binding.conditions];
    const wildcard = entry.hosts.find((host) => host.includes('*'));
    if (wildcard !== undefined && binding.waypoint === null) conditions.push(missingWaypoint(wildcard));
    if (settings.serviceEntryVisibility !== null) conditions.push(visibilityApplied(visibility));
    return conditions;
  }

  function ofSlice(slice: EndpointSlice): DerivedWorkloads {
    const service = serviceOfSlice(slice);
    if (service === null) return NOTHING;
    return derived(messagesOfEndpointSlice(slice, contextOf(objects.network, { services: [service] })));
  }

  /** A pod of a waypoint itself gets its traffic from nobody else, and in the way that it wants it. */
  function bindingOfWorkload(namespace: string, labels: Labels, around: Surroundings): WorkloadBinding {
    const gateway = labels['gateway.networking.k8s.io/gateway-name'];
    const own = gateway === undefined ? null : around.waypoint(`${namespace}/${gateway}`);
    if (own !== null) return { waypoint: null, applicationTunnel: own.inboundBinding, conditions: [] };
    const attachment = attachmentOf({ kind: 'workload', namespace, labels }, around);
    return {
      waypoint: attachment.kind === 'bound' ? attachment.waypoint.address : null,
      applicationTunnel: null,
      conditions: conditionsOf(attachment),
    };
  }

  return {
    derive(source, around) {
      if (source.object === null) return NOTHING;
      switch (source.kind) {
        case 'Pod':
          return ofPod(source.object, around);
        case 'WorkloadEntry':
          return ofWorkloadEntry(source.object, around);
        case 'ServiceEntry':
          return ofServiceEntry(source.object, around);
        case 'EndpointSlice':
          return ofSlice(source.object);
      }
    },
    gateways: () => gateways.map((gateway) => messageOfNetworkGateway(gateway, trustDomain)),
    setGateways(now) {
      const before = gatewayByNetwork;
      gateways = now;
      gatewayByNetwork = new Map();
      for (const gateway of now) {
        if (gateway.port !== 0 && !gatewayByNetwork.has(gateway.network))
          gatewayByNetwork.set(gateway.network, addressOfGateway(gateway));
      }
      return JSON.stringify([...before]) !== JSON.stringify([...gatewayByNetwork]);
    },
  };
}

function missingWaypoint(host: string): Condition {
  return {
    type: WAYPOINT_MISSING,
    status: 'True',
    reason: 'NoWaypointForWildcardService',
    message: `only a waypoint can resolve what is behind ${host}`,
  };
}

function visibilityApplied(visibility: PublishedService['visibility']): Condition {
  const seen = visibility === 'Public' ? 'in all namespaces' : 'in its own namespace only';
  return { type: VISIBILITY_APPLIED, status: 'True', reason: visibility, message: `visible ${seen}` };
}

interface WorkloadBinding {
  readonly waypoint: GatewayAddress | null;
  readonly applicationTunnel: ApplicationTunnel | null;
  readonly conditions: readonly Condition[];
}

interface PlannedEndpoint {
  readonly endpoint: EntryEndpoint;
  readonly context: WorkloadContext;
}

function* messagesOf(entry: ServiceEntry, planned: Iterable<PlannedEndpoint>): Generator<WorkloadMessage> {
  for (const { endpoint, context } of planned) yield messageOfServiceEntryEndpoint(entry, endpoint, context);
}

function derived(workloads: readonly WorkloadMessage[], conditions: readonly Condition[] = []): DerivedWorkloads {
  return { names: workloads.map(({ uid }) => uid), workloads, conditions };
}

const NOTHING: DerivedWorkloads = { names: [], workloads: [], conditions: [] };
/** Hosts of these are looked up in DNS when nothing else is said. */
const RESOLVED: readonly ServiceEntry['resolution'][] = ['DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'];
const IMPLICIT_ENDPOINT: EntryEndpoint = {
  address: '',
  ports: {},
  labels: {},
  network: '',
  locality: '',
  weight: 0,
  serviceAccount: '',
};

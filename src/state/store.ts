import { isDeepStrictEqual } from 'node:util';
import { Patience } from '../patience.ts';
import type { PodInfo } from '../zds/types.ts';
import type { EndpointView } from './endpoint-view.ts';
import type { MeshChange, MeshStore, MeshUpdate, WorkloadUpdate } from './mesh-state.ts';
import { pairOfPackedMaps } from './packed-map.ts';
import { PolicyIndex } from './policy-index.ts';
import { readKeys } from './read-keys.ts';
import { ServiceIndex } from './service-index.ts';
import { type CidrVip, type ServiceDefinition, type ServiceKey, serviceKey, type Workload } from './types.ts';
import { type WorkloadKeys, WorkloadTable } from './workload-table.ts';

/**
 * The one store of the process. Applying what is already there changes nothing and tells nobody.
 *
 * @param options.localNode name of this node, which limits `localWorkload` to its pods; '' means all nodes
 */
export function createMeshState(options: { localNode: string }): MeshStore {
  const [uids, versions] = pairOfPackedMaps();
  const workloads = new WorkloadTable(options.localNode, uids);
  const services = new ServiceIndex(workloads);
  const policies = new PolicyIndex();
  const listeners = new Map<(change: MeshChange) => void, () => boolean>();
  const waiting = new Set<() => void>();

  function putWorkload(update: WorkloadUpdate, change: Changing): void {
    const { uid } = update.workload;
    const before = change.isRead ? workloads.keysOf(uid) : null;
    if (!workloads.insert(update)) return;
    change.hasWorkloads = true;
    touchWorkload(before, change);
    if (change.isRead) touchWorkload(workloads.keysOf(uid), change);
  }

  function dropWorkload(uid: string, change: Changing): void {
    const before = change.isRead ? workloads.keysOf(uid) : null;
    if (!workloads.remove(uid)) return;
    change.hasWorkloads = true;
    touchWorkload(before, change);
  }

  function putService(definition: ServiceDefinition, change: Changing): void {
    const key = serviceKey(definition);
    const before = services.get(key);
    if (before !== null && isDeepStrictEqual(before, { ...definition, endpoints: before.endpoints })) return;
    services.insert(definition);
    if (before !== null) touchService(key, before, change);
    touchService(key, definition, change);
  }

  function dropService(key: ServiceKey, change: Changing): void {
    const before = services.get(key);
    if (before === null) return;
    services.remove(key);
    touchService(key, before, change);
  }

  function applyTo(change: Changing, update: MeshUpdate): void {
    for (const service of update.services ?? []) putService(service, change);
    for (const workload of update.workloads ?? []) putWorkload(workload, change);
    for (const [key, policy] of update.policies ?? []) {
      if (isDeepStrictEqual(policies.get(key), policy)) continue;
      policies.insert(key, policy);
      change.policies.add(key);
    }
    for (const uid of update.removedWorkloads ?? []) dropWorkload(uid, change);
    for (const key of update.removedServices ?? []) dropService(key, change);
    for (const key of update.removedPolicies ?? []) {
      if (policies.get(key) === null) continue;
      policies.remove(key);
      change.policies.add(key);
    }
  }

  function waitForLocalWorkload(pod: PodInfo, timeoutMs = LOCAL_WORKLOAD_TIMEOUT_MS): Promise<Workload | null> {
    const found = workloads.byPod(pod);
    if (found !== null) return Promise.resolve(found);
    return new Promise((resolve) => {
      const settle = (workload: Workload | null) => {
        patience.end();
        waiting.delete(look);
        resolve(workload);
      };
      const look = () => {
        const workload = workloads.byPod(pod);
        if (workload !== null) settle(workload);
      };
      const patience = new Patience(timeoutMs, () => settle(null));
      waiting.add(look);
    });
  }

  return {
    versions,
    workload: (uid) => workloads.get(uid),
    workloadByAddress: (network, ip) => workloads.byAddress(network, ip),
    workloadByHostname: (namespace, hostname) => workloads.byHostname(namespace, hostname),
    localWorkload: (pod) => workloads.byPod(pod),
    waitForLocalWorkload,
    service: (key) => services.get(key),
    serviceByVip: (network, ip, clientNamespace) => services.byVip(network, ip, clientNamespace),
    serviceByHostname: (hostname, clientNamespace, preferredNamespace) =>
      services.byHostname(hostname, clientNamespace, preferredNamespace),
    forEachEndpoint: ({ endpoints }, visit) => (endpoints as EndpointView).forEachMember(visit),
    policy: (key) => policies.get(key),
    namespacePolicies: (namespace) => policies.ofNamespace(namespace),
    globalPolicies: () => policies.global,
    workloads: () => workloads.values(),
    services: () => services.values(),
    policies: () => policies.entries(),
    stagedEndpoints: () => services.staged,

    apply(update) {
      const change: Changing = {
        hasWorkloads: false,
        hasServices: false,
        policies: new Set(),
        touched: new Set(),
        touchedBlocks: [],
        isRead: [...listeners.values()].some((readsTouched) => readsTouched()),
      };
      applyTo(change, update);
      if (!change.hasWorkloads && !change.hasServices && change.policies.size === 0) return;
      if (change.hasWorkloads) for (const look of [...waiting]) look();
      for (const listener of [...listeners.keys()]) listener(change);
    },

    subscribe(listener, readsTouched = () => false) {
      listeners.set(listener, readsTouched);
      return () => listeners.delete(listener);
    },
  };
}

/** The incumbent's wait for a pod to appear in the mesh state (spec §3.1). */
const LOCAL_WORKLOAD_TIMEOUT_MS = 5000;

interface Changing {
  hasWorkloads: boolean;
  hasServices: boolean;
  readonly policies: Set<string>;
  readonly touched: Set<string>;
  readonly touchedBlocks: CidrVip[];
  /** Whether anybody wants to know what was touched. */
  readonly isRead: boolean;
}

/** Whoever found the workload, or reads a service that it is an endpoint of, may find something else now. */
function touchWorkload(keys: WorkloadKeys | null, { touched }: Changing): void {
  if (keys === null) return;
  touched.add(readKeys.workload(keys.uid));
  for (const address of keys.addresses) touched.add(readKeys.address(address));
  if (keys.hostname !== null) touched.add(readKeys.workloadHostname(keys.hostname));
  touched.add(readKeys.pod(keys.pod));
  for (const key of keys.services) touched.add(readKeys.service(key));
}

function touchService(key: ServiceKey, { hostname, vips, cidrVips }: ServiceDefinition, change: Changing): void {
  change.hasServices = true;
  if (!change.isRead) return;
  change.touched.add(readKeys.service(key));
  change.touched.add(readKeys.serviceHostname(hostname));
  for (const vip of vips) change.touched.add(readKeys.address(vip));
  change.touchedBlocks.push(...cidrVips);
}

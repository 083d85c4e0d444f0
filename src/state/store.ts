import { isDeepStrictEqual } from 'node:util';
import type { PodInfo } from '../zds/types.ts';
import type { MeshChange, MeshStore, MeshUpdate, WorkloadUpdate } from './mesh-state.ts';
import { PolicyIndex } from './policy-index.ts';
import { ServiceIndex } from './service-index.ts';
import { networkAddress, type ServiceDefinition, type ServiceKey, serviceKey, type Workload } from './types.ts';
import { WorkloadIndex } from './workload-index.ts';

/**
 * The one store of the process. Applying what is already there changes nothing and tells nobody.
 *
 * @param options.localNode name of this node, which limits `localWorkload` to its pods; '' means all nodes
 */
export function createMeshState(options: { localNode: string }): MeshStore {
  const workloads = new WorkloadIndex(options.localNode);
  const services = new ServiceIndex();
  const policies = new PolicyIndex();
  const listeners = new Set<(change: MeshChange) => void>();
  const waiting = new Set<() => void>();

  function putWorkload({ workload: given, services: ports }: WorkloadUpdate, change: Changing): void {
    const workload: Workload = { ...given, services: Object.keys(ports).sort() };
    const before = workloads.get(workload.uid);
    if (before === null || !isDeepStrictEqual(before, workload)) {
      workloads.insert(workload);
      change.workloads.add(workload.uid);
    }
    for (const key of before?.services ?? []) if (!Object.hasOwn(ports, key)) detach(key, workload.uid, change);
    for (const key of workload.services) {
      const endpoint = { workloadUid: workload.uid, port: ports[key]!, status: workload.status };
      if (isDeepStrictEqual(services.endpoint(key, workload.uid), endpoint)) continue;
      services.setEndpoint(key, endpoint);
      change.services.add(key);
    }
  }

  function dropWorkload(uid: string, change: Changing): void {
    const workload = workloads.get(uid);
    if (workload === null) return;
    workloads.remove(uid);
    change.workloads.add(uid);
    for (const key of workload.services) detach(key, uid, change);
  }

  function detach(key: ServiceKey, uid: string, change: Changing): void {
    services.removeEndpoint(key, uid);
    change.services.add(key);
  }

  function putService(definition: ServiceDefinition, change: Changing): void {
    const before = services.get(serviceKey(definition));
    if (before !== null && isDeepStrictEqual(before, { ...definition, endpoints: before.endpoints })) return;
    services.insert(definition);
    change.services.add(serviceKey(definition));
  }

  function applyTo(change: Changing, update: MeshUpdate): void {
    // Services first, so that the endpoints of new workloads need no staging.
    for (const service of update.services ?? []) putService(service, change);
    for (const workload of update.workloads ?? []) putWorkload(workload, change);
    for (const [key, policy] of update.policies ?? []) {
      if (isDeepStrictEqual(policies.get(key), policy)) continue;
      policies.insert(key, policy);
      change.policies.add(key);
    }
    for (const uid of update.removedWorkloads ?? []) dropWorkload(uid, change);
    for (const key of update.removedServices ?? []) {
      if (services.get(key) === null) continue;
      services.remove(key);
      change.services.add(key);
    }
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
        clearTimeout(timer);
        waiting.delete(look);
        resolve(workload);
      };
      const look = () => {
        const workload = workloads.byPod(pod);
        if (workload !== null) settle(workload);
      };
      const timer = setTimeout(() => settle(null), timeoutMs);
      waiting.add(look);
    });
  }

  return {
    workload: (uid) => workloads.get(uid),
    workloadByAddress: (network, ip) => workloads.byAddress(networkAddress(network, ip)),
    workloadByHostname: (namespace, hostname) => workloads.byHostname(namespace, hostname),
    localWorkload: (pod) => workloads.byPod(pod),
    waitForLocalWorkload,
    service: (key) => services.get(key),
    serviceByVip: (network, ip, clientNamespace) => services.byVip(network, ip, clientNamespace),
    serviceByHostname: (hostname, clientNamespace, preferredNamespace) =>
      services.byHostname(hostname, clientNamespace, preferredNamespace),
    policy: (key) => policies.get(key),
    namespacePolicies: (namespace) => policies.ofNamespace(namespace),
    globalPolicies: () => policies.global,
    workloads: () => workloads.values(),
    services: () => services.values(),
    policies: () => policies.entries(),
    stagedEndpoints: () => services.staged,

    apply(update) {
      const change: Changing = { workloads: new Set(), services: new Set(), policies: new Set() };
      applyTo(change, update);
      if (change.workloads.size + change.services.size + change.policies.size === 0) return;
      if (change.workloads.size > 0) for (const look of [...waiting]) look();
      for (const listener of [...listeners]) listener(change);
    },

    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The incumbent's wait for a pod to appear in the mesh state (spec §3.1). */
const LOCAL_WORKLOAD_TIMEOUT_MS = 5000;

interface Changing {
  readonly workloads: Set<string>;
  readonly services: Set<ServiceKey>;
  readonly policies: Set<string>;
}

import type { Policy } from '../policy/types.ts';
import type { LocalMesh } from './local-file.ts';
import type { MeshStore, MeshUpdate, WorkloadUpdate } from './mesh-state.ts';
import { type PolicyKey, type ServiceDefinition, type ServiceKey, serviceKey } from './types.ts';

/**
 * What a local file says, under what a control plane says: of two resources with one name the control plane's is in force,
 * and the file's comes back when the control plane removes its own (spec §9.8).
 */
export interface LocalLayer {
  /** Changes of the file. */
  apply(update: MeshUpdate): void;
  workload(uid: string): WorkloadUpdate | null;
  service(key: ServiceKey): ServiceDefinition | null;
  policy(key: PolicyKey): Policy | null;
  /** All that the file says. */
  content(): LocalMesh;
}

/** Whether a name is the control plane's. */
export interface Overlay {
  hasAddress(name: string): boolean;
  hasPolicy(name: string): boolean;
}

export function createLocalLayer(store: Pick<MeshStore, 'apply'>, overlay: Overlay): LocalLayer {
  const workloads = new Map<string, WorkloadUpdate>();
  const services = new Map<ServiceKey, ServiceDefinition>();
  const policies = new Map<PolicyKey, Policy>();

  return {
    apply(update) {
      const changed = {
        workloads: [...(update.workloads ?? [])],
        services: [...(update.services ?? [])],
        policies: [...(update.policies ?? [])],
        removedWorkloads: [...(update.removedWorkloads ?? [])],
        removedServices: [...(update.removedServices ?? [])],
        removedPolicies: [...(update.removedPolicies ?? [])],
      };
      for (const each of changed.workloads) workloads.set(each.workload.uid, each);
      for (const each of changed.services) services.set(serviceKey(each), each);
      for (const [key, policy] of changed.policies) policies.set(key, policy);
      for (const uid of changed.removedWorkloads) workloads.delete(uid);
      for (const key of changed.removedServices) services.delete(key);
      for (const key of changed.removedPolicies) policies.delete(key);
      const isFree = (name: string) => !overlay.hasAddress(name);
      store.apply({
        workloads: changed.workloads.filter(({ workload }) => isFree(workload.uid)),
        services: changed.services.filter((service) => isFree(serviceKey(service))),
        policies: changed.policies.filter(([key]) => !overlay.hasPolicy(key)),
        removedWorkloads: changed.removedWorkloads.filter(isFree),
        removedServices: changed.removedServices.filter(isFree),
        removedPolicies: changed.removedPolicies.filter((key) => !overlay.hasPolicy(key)),
      });
    },
    workload: (uid) => workloads.get(uid) ?? null,
    service: (key) => services.get(key) ?? null,
    policy: (key) => policies.get(key) ?? null,
    content: () => ({
      workloads: [...workloads.values()],
      services: [...services.values()],
      policies: [...policies.entries()],
    }),
  };
}

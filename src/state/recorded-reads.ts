import type { MeshState } from './mesh-state.ts';
import { readKeys } from './read-keys.ts';
import { networkAddress, type ServiceKey, serviceKey } from './types.ts';
import { podName } from './workload-table.ts';

/** The part of the mesh state that routes are planned from. */
export type RouteState = Pick<
  MeshState,
  | 'workload'
  | 'workloadByAddress'
  | 'workloadByHostname'
  | 'localWorkload'
  | 'service'
  | 'serviceByVip'
  | 'serviceByHostname'
  | 'forEachEndpoint'
>;

/**
 * The same state; notes every look-up in `reads`, those that find nothing too. What was derived from the answers holds
 * as long as no change touches one of them (MeshChange.touched).
 */
export function recordReads(mesh: RouteState, reads: Set<string>): RouteState {
  /** What is found belongs to the answer with all it says, its endpoints included. */
  function found<T extends { readonly namespace: string; readonly hostname: string } | null>(service: T): T {
    if (service !== null) reads.add(readKeys.service(serviceKey(service)));
    return service;
  }
  return {
    workload(uid) {
      reads.add(readKeys.workload(uid));
      return mesh.workload(uid);
    },
    workloadByAddress(network, ip) {
      reads.add(readKeys.address(networkAddress(network, ip)));
      return mesh.workloadByAddress(network, ip);
    },
    workloadByHostname(namespace, hostname) {
      reads.add(readKeys.workloadHostname(`${namespace}/${hostname}`));
      return mesh.workloadByHostname(namespace, hostname);
    },
    localWorkload(pod) {
      reads.add(readKeys.pod(podName(pod)));
      return mesh.localWorkload(pod);
    },
    service(key: ServiceKey) {
      reads.add(readKeys.service(key));
      return mesh.service(key);
    },
    serviceByVip(network, ip, clientNamespace) {
      reads.add(readKeys.address(networkAddress(network, ip)));
      return found(mesh.serviceByVip(network, ip, clientNamespace));
    },
    serviceByHostname(hostname, clientNamespace, preferredNamespace) {
      reads.add(readKeys.serviceHostname(hostname));
      return found(mesh.serviceByHostname(hostname, clientNamespace, preferredNamespace));
    },
    forEachEndpoint(service, visit) {
      found(service);
      mesh.forEachEndpoint(service, visit);
    },
  };
}

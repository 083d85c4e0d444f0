/** Names for the look-ups of a MeshState, so that what was read can be compared with what has changed. */
import type { NetworkAddress, ServiceKey } from './types.ts';

export const readKeys = {
  workload: (uid: string) => `w ${uid}`,
  /** Owner of an address, workload or service. */
  address: (address: NetworkAddress) => `a ${address}`,
  workloadHostname: (namespacedHostname: string) => `h ${namespacedHostname}`,
  /** `name` as podName makes it */
  pod: (name: string) => `p ${name}`,
  /** A service with its endpoints. */
  service: (key: ServiceKey) => `s ${key}`,
  /** The addresses that DNS gives for a name. */
  resolvedName: (hostname: string) => `d ${hostname}`,
  serviceHostname: (hostname: string) => `n ${hostname}`,
} as const;

/** The address of a key made by `readKeys.address`; null for other keys. */
export function addressOfReadKey(key: string): NetworkAddress | null {
  return key.startsWith('a ') ? key.slice(2) : null;
}

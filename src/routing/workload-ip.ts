import { isIpv4 } from '../netns/address.ts';
import type { Service, Workload } from '../state/types.ts';

/** How a workload can be dialled. */
export type DialAddress =
  | { readonly kind: 'ip'; readonly ip: string }
  /** Only by resolving its name. */
  | { readonly kind: 'hostname' }
  /** Only through its network's gateway. */
  | { readonly kind: 'gateway' }
  | { readonly kind: 'none' };

/**
 * Chooses the address to dial (spec §3.7): the one the client asked for when it is the workload's; else the first the
 * service's families allow, in the client's family when there is one.
 *
 * @param target the address whose family decides, canonical
 * @param families of the service that led here; null allows any
 */
export function chooseAddress(workload: Workload, target: string, families: Service['ipFamilies']): DialAddress {
  if (workload.workloadIps.includes(target)) return { kind: 'ip', ip: target };
  const allowed = workload.workloadIps.filter((ip) => isAllowed(ip, families));
  const ip = allowed.find((candidate) => isIpv4(candidate) === isIpv4(target)) ?? allowed[0];
  if (ip !== undefined) return { kind: 'ip', ip };
  if (workload.hostname !== '') return { kind: 'hostname' };
  return { kind: workload.networkGateway === null ? 'none' : 'gateway' };
}

function isAllowed(ip: string, families: Service['ipFamilies']): boolean {
  if (families === 'IPv4') return isIpv4(ip);
  return families !== 'IPv6' || !isIpv4(ip);
}

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
export function chooseAddress(
  workload: Pick<Workload, 'workloadIps' | 'hostname' | 'networkGateway'>,
  target: string,
  families: Service['ipFamilies'],
): DialAddress {
  const { workloadIps } = workload;
  if (workloadIps.includes(target)) return { kind: 'ip', ip: target };
  let allowed: string | null = null;
  for (const ip of workloadIps) {
    if (!isAllowed(ip, families)) continue;
    if (isIpv4(ip) === isIpv4(target)) return { kind: 'ip', ip };
    allowed ??= ip;
  }
  if (allowed !== null) return { kind: 'ip', ip: allowed };
  if (workload.hostname !== '') return { kind: 'hostname' };
  return { kind: workload.networkGateway === null ? 'none' : 'gateway' };
}

function isAllowed(ip: string, families: Service['ipFamilies']): boolean {
  if (families === 'IPv4') return isIpv4(ip);
  return families !== 'IPv6' || !isIpv4(ip);
}

import { existsSync } from 'node:fs';

/**
 * Whether a namespace has IPv6 to capture or to listen on: a kernel without it refuses the rules. Asked of the kernel, since
 * a namespace has what the kernel has.
 */
export function kernelHasIpv6(): boolean {
  return existsSync('/proc/net/if_inet6');
}

import { BlockList, isIPv4 } from 'node:net';

/** Whether an address is in one of the ranges, `ip` or `ip/length`; null for any address. */
export function addressesWithin(ranges: readonly string[] | null): (ip: string) => boolean {
  if (ranges === null) return () => true;
  const list = new BlockList();
  for (const range of ranges) {
    const [address = '', bits] = range.split('/');
    if (bits === undefined) list.addAddress(address, familyOf(address));
    else list.addSubnet(address, Number(bits), familyOf(address));
  }
  return (ip) => list.check(ip, familyOf(ip));
}

function familyOf(ip: string): 'ipv4' | 'ipv6' {
  return isIPv4(ip) ? 'ipv4' : 'ipv6';
}

import type { PeerCertificate } from 'node:tls';

/** Where a server named `https://host[:port]` is; `host` without the brackets of an IPv6 address. */
export function destinationOf(address: string): { hostname: string; host: string; port: number } {
  const { hostname, port } = new URL(address);
  return { hostname, host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 443) };
}

/** What is wrong with the names in a server's certificate: it must bear `host`, or else the further one (§8.3). */
export function checkServerNames(
  host: string,
  altHostname: string | null,
  certificate: PeerCertificate,
): Error | undefined {
  const { checkServerIdentity } = process.getBuiltinModule('node:tls');
  const error = checkServerIdentity(host, certificate);
  return error === undefined || altHostname === null ? error : checkServerIdentity(altHostname, certificate);
}

import { canonicalIp } from '../netns/address.ts';
import type { Lookup } from './hostnames.ts';

/** How long an answer of the hosts file or of other name services holds, which say no time; in ms. */
const UNTOLD_TTL = 30_000;
/** A server that does not answer is asked once more, so an outcome takes 4 s at most for each server. */
const TIMEOUT = 2000;
const TRIES = 2;

/**
 * Looks up A and AAAA records with the servers of this agent's own resolv.conf; then what the system knows of the name
 * otherwise, as by the hosts file.
 *
 * @param ipv6 whether to ask for AAAA records
 * @param servers to be asked instead, as `ip:port`
 * @throws the error of the A query, with its name as `code`
 */
export async function lookUpHostname(
  hostname: string,
  ipv6: boolean,
  servers: readonly string[] = [],
): Promise<Lookup> {
  // Loaded with the first name: most meshes have none.
  const { Resolver, lookup } = process.getBuiltinModule('node:dns').promises;
  const resolver = new Resolver({ timeout: TIMEOUT, tries: TRIES });
  if (servers.length > 0) resolver.setServers(servers);
  const [a, aaaa] = await Promise.allSettled([
    resolver.resolve4(hostname, { ttl: true }),
    ipv6 ? resolver.resolve6(hostname, { ttl: true }) : Promise.resolve([]),
  ]);
  const records = [a, aaaa].flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  if (records.length > 0) {
    return {
      ips: records.map(({ address }) => canonicalIp(address)).filter((ip) => ip !== null),
      ttl: Math.min(...records.map(({ ttl }) => ttl)) * 1000,
    };
  }
  const others = await lookup(hostname, { all: true, family: ipv6 ? 0 : 4 }).catch(() => []);
  if (others.length === 0 && a.status === 'rejected') throw a.reason;
  return { ips: others.map(({ address }) => canonicalIp(address)).filter((ip) => ip !== null), ttl: UNTOLD_TTL };
}

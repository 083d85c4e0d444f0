import type { RouteState } from './recorded-reads.ts';
import { networkAddress } from './types.ts';

/** What look-ups found nothing for, by the keys that a control plane can be asked for (spec §9.6). */
export interface Misses {
  /** `network/ip` of what is neither a workload's nor a service's. */
  addresses(): string[];
  /** `namespace/hostname` of services. */
  readonly services: ReadonlySet<string>;
}

/** The same state; notes in the result every look-up that finds nothing. */
export function recordMisses(mesh: RouteState): { readonly state: RouteState; readonly misses: Misses } {
  const missed = new Set<string>();
  const found = new Set<string>();
  const services = new Set<string>();

  function byAddress<T>(network: string, ip: string, answer: T | null): T | null {
    (answer === null ? missed : found).add(networkAddress(network, ip));
    return answer;
  }

  return {
    state: {
      ...mesh,
      workloadByAddress: (network, ip) => byAddress(network, ip, mesh.workloadByAddress(network, ip)),
      serviceByVip: (network, ip, client) => byAddress(network, ip, mesh.serviceByVip(network, ip, client)),
      service(key) {
        const service = mesh.service(key);
        if (service === null) services.add(key);
        return service;
      },
    },
    misses: { addresses: () => [...missed].filter((key) => !found.has(key)), services },
  };
}

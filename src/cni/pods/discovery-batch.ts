import type { NetnsHandle } from '../../netns/handle.ts';
import { findPodNamespaces } from './netns-discovery.ts';

/** Answers searches that come together by one walk over the node's processes. @param proc where /proc of the node is */
export function createDiscovery(proc: string) {
  const wanted = new Map<
    string,
    { ips: readonly string[]; resolve(netns: NetnsHandle | null): void; reject(error: unknown): void }[]
  >();
  let walking = false;

  async function walk(): Promise<void> {
    walking = true;
    while (wanted.size > 0) {
      const asked = new Map(wanted);
      wanted.clear();
      try {
        const ips = new Map([...asked].map(([uid, asks]) => [uid, asks.flatMap((ask) => ask.ips)]));
        const found = await findPodNamespaces(proc, ips);
        for (const [uid, asks] of asked) {
          const netns = found.get(uid) ?? null;
          // Each who asked owns a handle.
          for (const [index, ask] of asks.entries()) ask.resolve(index === 0 ? netns : (netns?.duplicate() ?? null));
        }
      } catch (error) {
        for (const asks of asked.values()) for (const ask of asks) ask.reject(error);
      }
    }
    walking = false;
  }

  return (uid: string, ips: readonly string[]): Promise<NetnsHandle | null> =>
    new Promise((resolve, reject) => {
      const asks = wanted.get(uid) ?? [];
      asks.push({ ips, resolve, reject });
      wanted.set(uid, asks);
      // Those of the same turn are in the first walk.
      if (!walking) setImmediate(() => walking || void walk());
    });
}

import type { NetnsHandle } from '../../netns/handle.ts';
import type { PodObject } from '../kube/objects.ts';
import { findPodNamespaces, uidInCgroups } from './netns-discovery.ts';

type SearchedPod = Pick<PodObject, 'uid' | 'staticUid' | 'ips'>;

interface Ask {
  readonly pod: SearchedPod;
  resolve(netns: NetnsHandle | null): void;
  reject(error: unknown): void;
}

/** Answers searches that come together by one walk over the node's processes. @param proc where /proc of the node is */
export function createDiscovery(proc: string) {
  /** By the uid in cgroups. */
  const wanted = new Map<string, Ask[]>();
  let walking = false;

  async function walk(): Promise<void> {
    walking = true;
    while (wanted.size > 0) {
      const asked = takeAsks();
      try {
        const ips = new Map([...asked].map(([uid, asks]) => [uid, asks.flatMap(({ pod }) => pod.ips)]));
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

  /** A pod may claim the uid of another in its annotations: it never shares a search with it, nor what that finds. */
  function takeAsks(): Map<string, Ask[]> {
    const taken = new Map<string, Ask[]>();
    for (const [uid, asks] of wanted) {
      const isFirst = ({ pod }: Ask) => pod.uid === asks[0]!.pod.uid;
      taken.set(uid, asks.filter(isFirst));
      const others = asks.filter((ask) => !isFirst(ask));
      if (others.length > 0) wanted.set(uid, others);
      else wanted.delete(uid);
    }
    return taken;
  }

  return (pod: SearchedPod): Promise<NetnsHandle | null> =>
    new Promise((resolve, reject) => {
      const uid = uidInCgroups(pod);
      const asks = wanted.get(uid) ?? [];
      asks.push({ pod, resolve, reject });
      wanted.set(uid, asks);
      // Those of the same turn are in the first walk.
      if (!walking) setImmediate(() => walking || void walk());
    });
}

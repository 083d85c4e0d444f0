/** The pods of a thread as plain data, for who asks from another thread. */
import type { LiveConnection } from '../explain/connection.ts';
import { isJudged } from '../filters/policy.ts';
import { OutboundConnection } from '../outbound/outbound-connection.ts';
import type { PodSnapshot } from './messages.ts';
import type { ListenerInfo, PodRuntime } from './pod-runtime.ts';

/** @param filters of each listener, in the order in which they are asked */
export function snapshotOf(
  pods: ReadonlyMap<string, PodRuntime>,
  filters: Readonly<Record<ListenerInfo['name'], readonly string[]>>,
): PodSnapshot[] {
  return [...pods].map(([uid, pod]) => ({
    uid,
    listeners: pod.listeners.map((listener) => ({ ...listener, filters: filters[listener.name] })),
    connections: [...pod.connections].map((connection) => ({ ...connection.describe(), number: connection.id })),
    unhealthyEndpoints: pod.balancer.unhealthy(),
  }));
}

/** A live connection by its number; null when there is none. */
export function liveConnectionOf(pods: ReadonlyMap<string, PodRuntime>, number: number): LiveConnection | null {
  for (const [pod, { connections }] of pods) {
    for (const connection of connections) {
      if (connection.id !== number) continue;
      return {
        pod,
        dump: connection.describe(),
        policyFacts: isJudged(connection) ? connection.policyFacts() : null,
        endpoint: connection instanceof OutboundConnection ? connection.endpoint : null,
        ageMs: performance.now() - connection.startedAt,
        bytesFromClient: connection.bytesFromClient,
        bytesFromServer: connection.bytesFromServer,
      };
    }
  }
  return null;
}

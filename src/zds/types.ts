import { afterReading } from '../after-reading.ts';
import type { NetnsHandle } from '../netns/handle.ts';

/** What the node agent says about a pod: metadata.name, metadata.namespace and spec.serviceAccountName. */
export interface WorkloadInfo {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** What the node agent says about an enrolled pod: the uid of its Pod object and its WorkloadInfo (spec §1). */
export interface PodInfo extends WorkloadInfo {
  readonly uid: string;
}

/** What the node agent sends. An `add` comes with exactly one descriptor, the others with none. */
export type WorkloadRequest =
  | { readonly kind: 'add'; readonly uid: string; readonly workload: WorkloadInfo | null }
  /** The pod goes on as it is: the node agent knows it but has no descriptor of its namespace. Only in a snapshot. */
  | { readonly kind: 'keep'; readonly uid: string }
  | { readonly kind: 'del'; readonly uid: string }
  | { readonly kind: 'snapshot-sent' };

/** A pod that is served, and the key of the namespace it is served in. */
export interface RunningPod {
  readonly pod: PodInfo;
  readonly netns: string;
}

/**
 * What the session asks of the data plane. It is the owner of what runs: a session that ends leaves everything running.
 */
export interface PodManager {
  /**
   * Serves a pod: resolves when its sockets are bound. From then on the handle belongs to the manager, which closes it
   * after the pod has been stopped. When it rejects, nothing of the pod is left and the handle is the caller's again.
   * A pod of that uid which is being stopped is waited for.
   */
  start(pod: PodInfo, netns: NetnsHandle): Promise<void>;
  /**
   * Stops serving a pod, at once as far as `running` is concerned. The pod is taken to be gone: its connections are cut
   * without waiting (spec §16.4).
   */
  stop(uid: string): void;
  running(): ReadonlyMap<string, RunningPod>;
}

/** Timers, injected so that tests own the time. */
export interface Timers {
  /** Calls back once after `ms`. The returned function cancels it. */
  after(ms: number, callback: () => void): () => void;
}

export const realTimers: Timers = { after: afterReading };

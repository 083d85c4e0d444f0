import { isNotFound, type KubeApi } from '../../kube/api.ts';
import { type PodObject, readPod } from './objects.ts';

/** Pods that a plugin has asked about before the watch told of them. They count as existing until somebody knows better. */
export interface ProvisionalPods {
  get(uid: string): PodObject | null;
  expect(pod: PodObject): void;
  /** The watch has told about the pod: it knows better. */
  settle(uid: string): void;
  close(): void;
}

export interface ProvisionalPodsOptions {
  readonly api: Pick<KubeApi, 'get'>;
  /** What is known of the pod has changed; `delete` when it does not exist. */
  readonly onChange: (uid: string, kind: 'update' | 'delete') => void;
  /** After how long without a word of the watch the API server is asked, in ms. */
  readonly askMs?: number;
}

/** A watch may lag for minutes before its connection counts as dead: only the API server says that a pod is gone. */
export function createProvisionalPods({ api, onChange, askMs = 60_000 }: ProvisionalPodsOptions): ProvisionalPods {
  const entries = new Map<string, { pod: PodObject; timer: NodeJS.Timeout }>();

  function settle(uid: string): void {
    clearTimeout(entries.get(uid)?.timer);
    entries.delete(uid);
  }

  function expect(pod: PodObject): void {
    settle(pod.uid);
    entries.set(pod.uid, { pod, timer: setTimeout(() => void ask(pod), askMs).unref() });
  }

  async function ask(asked: PodObject): Promise<void> {
    const now = await look(asked);
    // Meanwhile the watch, or a plugin, has told about it.
    if (entries.get(asked.uid)?.pod !== asked) return;
    if (now === null) settle(asked.uid);
    else expect(now);
    if (now !== asked) onChange(asked.uid, now === null ? 'delete' : 'update');
  }

  /** The pod as it is now, or as it was asked about when that cannot be told; null when there is none. */
  async function look(asked: PodObject): Promise<PodObject | null> {
    try {
      const pod = readPod(await api.get(`/api/v1/namespaces/${asked.namespace}/pods/${asked.name}`));
      return pod?.uid === asked.uid ? pod : null;
    } catch (error) {
      return isNotFound(error) ? null : asked;
    }
  }

  return {
    get: (uid) => entries.get(uid)?.pod ?? null,
    expect,
    settle,
    close() {
      for (const uid of entries.keys()) settle(uid);
    },
  };
}

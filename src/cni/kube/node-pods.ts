import { CulvertError } from '../../errors.ts';
import { isConflict, isNotFound, type KubeApi } from '../../kube/api.ts';
import { metadataOf, text } from '../../kube/object.ts';
import { type Reflector, startReflector } from '../../kube/reflector.ts';
import type { Logger } from '../../log/logger.ts';
import type { NodeAgentConfig } from '../config.ts';
import { type Eligibility, eligibilityOf } from '../enrolment/eligibility.ts';
import { podRulesOf } from '../enrolment/overrides.ts';
import { selectsNamespace } from '../enrolment/selectors.ts';
import type { SandboxPod } from '../plugin/request.ts';
import type { Desired } from '../pods/enroller.ts';
import { defaultPodRules, type PodRules } from '../rules/pod-rules.ts';
import { type NamespaceObject, type PodObject, REDIRECTION, readNamespace, readPod } from './objects.ts';
import { createProvisionalPods } from './provisional-pods.ts';

/** Pods of the node and all namespaces, as the API server tells, and what follows for each pod. */
export interface NodePods {
  readonly synced: Promise<unknown>;
  isSynced(): boolean;
  desired(uid: string): Desired;
  pods(): Iterable<PodObject>;
  enrolledNamespaces(): string[];
  eligiblePod(pod: SandboxPod): Promise<PodObject | null>;
  failures(): { labels: string[]; value: number }[];
  close(): void;
}

export function watchNodePods(
  config: NodeAgentConfig,
  api: KubeApi,
  log: Logger,
  events: { onPod(uid: string, kind: 'add' | 'update' | 'delete'): void; onNamespaces(): void },
): NodePods {
  const rules = { ...config, systemNamespaces: [config.systemNamespace, config.podNamespace] };
  const nodeRules: PodRules = {
    ...defaultPodRules,
    dnsCapture: config.dnsCapture,
    ipv6: config.ipv6,
    probeIpv4: config.probeIpv4,
    probeIpv6: config.probeIpv6,
  };
  const provisional = createProvisionalPods({ api, onChange: events.onPod });
  let isSynced = false;
  const namespaces: Reflector<NamespaceObject> = startReflector<NamespaceObject>({
    api,
    path: '/api/v1/namespaces',
    read: readNamespace,
    key: (object) => text(metadataOf(object).name),
    onChange(_before, after, name) {
      events.onNamespaces();
      // A pod of its own labels does not depend on its namespace, but looking is cheap.
      if (after !== null) for (const pod of pods.values()) if (pod.namespace === name) events.onPod(pod.uid, 'update');
    },
    log,
  });
  const pods: Reflector<PodObject> = startReflector<PodObject>({
    api,
    path: '/api/v1/pods',
    query: { fieldSelector: `spec.nodeName=${config.nodeName}` },
    read: readPod,
    key: (object) => text(metadataOf(object).uid),
    onChange(before, after, uid) {
      provisional.settle(uid);
      events.onPod(uid, after === null ? 'delete' : before === null ? 'add' : 'update');
    },
    log,
  });
  const synced = Promise.all([namespaces.synced, pods.synced]).then(() => {
    isSynced = true;
  });

  function eligibility(pod: PodObject, namespace = namespaces.get(pod.namespace)): Eligibility {
    return eligibilityOf(pod, namespace, rules);
  }

  function desired(uid: string): Desired {
    if (!isSynced) return { kind: 'unknown' };
    const pod = pods.get(uid) ?? provisional.get(uid);
    if (pod === null || pod.terminal) return { kind: 'gone' };
    const verdict = eligibility(pod);
    if (verdict === 'namespace-unknown') return { kind: 'unknown' };
    if (verdict !== 'selected') return { kind: 'out', pod };
    const complain = (annotation: string, value: string) =>
      log.warn('pods', 'annotation not understood', { pod: `${pod.namespace}/${pod.name}`, annotation, value });
    return { kind: 'enrolled', pod, rules: podRulesOf(pod, nodeRules, complain) };
  }

  /** The pod of a sandbox: by the watch, or else by asking, because the watch may lag behind the kubelet. */
  async function findPod({ namespace, name, uid }: SandboxPod): Promise<PodObject | null> {
    const known = uid === '' ? null : pods.get(uid);
    if (known !== null) return known;
    const pod = readPod(await api.get(`/api/v1/namespaces/${namespace}/pods/${name}`));
    // A static pod is known to the kubelet by another uid than to the API; its processes, too.
    if (pod === null || (uid !== '' && pod.uid !== uid && pod.staticUid !== uid)) {
      throw new CulvertError('POD_UNKNOWN', `the API server has no pod ${namespace}/${name} with uid ${uid}`);
    }
    return pod;
  }

  async function eligiblePod(sandbox: SandboxPod): Promise<PodObject | null> {
    if (config.excludeNamespaces.includes(sandbox.namespace)) return null;
    let pod: PodObject | null;
    try {
      pod = await findPod(sandbox);
    } catch (error) {
      // It was deleted while its sandbox was made: there is nothing to protect.
      if (isNotFound(error)) return null;
      throw error;
    }
    if (pod === null) return null;
    const namespace =
      namespaces.get(pod.namespace) ?? readNamespace(await api.get(`/api/v1/namespaces/${pod.namespace}`));
    if (eligibility(pod, namespace) !== 'selected') return null;
    if (pods.get(pod.uid) === null) provisional.expect(pod);
    return pod;
  }

  return {
    synced,
    isSynced: () => isSynced,
    desired,
    pods: () => pods.values(),
    enrolledNamespaces: () =>
      [...namespaces.values()].flatMap(({ name, labels }) =>
        !config.excludeNamespaces.includes(name) && selectsNamespace(config.selectors, labels) ? [name] : [],
      ),
    eligiblePod,
    failures: () => [
      { labels: ['namespaces'], value: namespaces.failures() },
      { labels: ['pods'], value: pods.failures() },
    ],
    close() {
      namespaces.close();
      pods.close();
      provisional.close();
    },
  };
}

/** Writes the status annotation of a pod; null removes it. A pod that is gone is no error. @throws KubeError */
export async function annotate(
  api: KubeApi,
  pod: { namespace: string; name: string; uid: string },
  value: string | null,
): Promise<void> {
  try {
    await api.mergePatch(`/api/v1/namespaces/${pod.namespace}/pods/${pod.name}/status`, {
      // With the uid, a pod of the same name that has taken its place is not touched.
      metadata: { uid: pod.uid, annotations: { [REDIRECTION]: value } },
    });
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}

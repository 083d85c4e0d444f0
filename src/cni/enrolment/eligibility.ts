import { type NamespaceObject, type PodObject, SIDECAR_STATUS } from '../kube/objects.ts';
import { type EnrolmentSelectors, isSelected } from './selectors.ts';

/** Why a pod is enrolled or not. `selected` is the only yes. */
export type Eligibility =
  | 'selected'
  | 'not-selected'
  | 'host-network'
  | 'has-sidecar'
  | 'excluded-namespace'
  | 'is-agent'
  | 'namespace-unknown';

export interface EligibilityRules {
  readonly selectors: EnrolmentSelectors;
  readonly excludeNamespaces: readonly string[];
  /** Where pods with the label `app=ztunnel` are agents. */
  readonly systemNamespaces: readonly string[];
}

/** Whether a pod belongs into the mesh (spec node-02 §2.2). A namespace that is not known enrols nothing. */
export function eligibilityOf(
  pod: PodObject,
  namespace: NamespaceObject | null,
  { selectors, excludeNamespaces, systemNamespaces }: EligibilityRules,
): Eligibility {
  if (pod.hostNetwork) return 'host-network';
  if (Object.hasOwn(pod.annotations, SIDECAR_STATUS)) return 'has-sidecar';
  if (excludeNamespaces.includes(pod.namespace)) return 'excluded-namespace';
  if (systemNamespaces.includes(pod.namespace) && pod.labels.app === 'ztunnel') return 'is-agent';
  if (namespace === null) return 'namespace-unknown';
  return isSelected(selectors, pod.labels, namespace.labels) ? 'selected' : 'not-selected';
}

import { parseGoBoolean } from '../../config/values.ts';
import { BYPASS_INBOUND, DNS_CAPTURE, type PodObject, VIRTUAL_INTERFACES } from '../kube/objects.ts';
import type { PodRules } from '../rules/pod-rules.ts';

/**
 * The rules of one pod: the node's, changed by its annotations (spec node-02 §2.1). A value that is not understood is
 * told to `complain` and counts as absent, so that a typing mistake never takes a pod out of the mesh.
 */
export function podRulesOf(
  pod: Pick<PodObject, 'annotations'>,
  node: PodRules,
  complain: (annotation: string, value: string) => void,
): PodRules {
  const boolean = (key: string, otherwise: boolean) => {
    const given = pod.annotations[key];
    if (given === undefined) return otherwise;
    const value = parseGoBoolean(given);
    if (value === undefined) complain(key, given);
    return value ?? otherwise;
  };
  const interfaces = (pod.annotations[VIRTUAL_INTERFACES] ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  return {
    ...node,
    ingress: boolean(BYPASS_INBOUND, node.ingress),
    dnsCapture: boolean(DNS_CAPTURE, node.dnsCapture),
    virtualInterfaces: [...node.virtualInterfaces, ...interfaces],
  };
}

import { messageOf } from '../../errors.ts';
import type { Logger } from '../../log/logger.ts';
import { canonicalIp } from '../../netns/address.ts';
import type { NetnsHandle } from '../../netns/handle.ts';
import type { PodObject } from '../kube/objects.ts';
import { type Enroller, explainAdmission } from '../pods/enroller.ts';
import type { PodState } from '../pods/pod-entry.ts';
import { CNI_ERROR, type PluginAnswer, type PluginRequest, type SandboxPod } from './request.ts';

export interface PluginHandlerOptions {
  /** Pods and namespaces are known. */
  readonly synced: () => boolean;
  /**
   * The Pod object of a sandbox that is being made; null when it should not be in the mesh.
   * @throws CulvertError when that cannot be told
   */
  readonly eligiblePod: (pod: SandboxPod) => Promise<PodObject | null>;
  readonly enroller: Pick<Enroller, 'admit' | 'release' | 'states'>;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

/** What the node agent does for each call of the CNI plugin (CNI specification 1.1, spec node-03). */
export function createPluginHandler({ synced, eligiblePod, enroller, log }: PluginHandlerOptions) {
  return async (request: PluginRequest, netns: NetnsHandle | null): Promise<PluginAnswer> => {
    if (request.command === 'ADD') return await add(request, netns);
    netns?.close();
    switch (request.command) {
      case 'DEL':
        enroller.release((containerId) => containerId === request.containerId);
        return OK;
      case 'GC': {
        const { validContainers } = request;
        if (validContainers !== null) enroller.release((containerId) => !validContainers.has(containerId));
        return OK;
      }
      case 'CHECK':
        return await check(request);
      case 'STATUS':
        // Never an error: a node whose network counts as broken could not even start what repairs it.
        return OK;
    }
  };

  async function add(request: PluginRequest, netns: NetnsHandle | null): Promise<PluginAnswer> {
    let given = netns;
    try {
      if (request.pod === null) return OK;
      if (!synced()) return { kind: 'unavailable', reason: 'the node agent does not know the pods yet' };
      let pod: PodObject | null;
      try {
        pod = await eligiblePod(request.pod);
      } catch (error) {
        return { kind: 'unavailable', reason: messageOf(error) };
      }
      if (pod === null) return OK;
      if (given === null) {
        return { kind: 'error', code: CNI_ERROR.invalidEnvironment, message: 'the sandbox has no network namespace' };
      }
      const ips = request.ips.flatMap((ip) => canonicalIp(ip) ?? []);
      const sandbox = { containerId: request.containerId, netns: given, ips };
      given = null;
      try {
        await enroller.admit(pod, sandbox);
      } catch (error) {
        const message = `pod ${pod.namespace}/${pod.name} cannot be enrolled: ${explainAdmission(error)}`;
        log.warn('plugin', 'pod refused', { pod: `${pod.namespace}/${pod.name}`, error: messageOf(error) });
        return { kind: 'error', code: CNI_ERROR.tryAgain, message };
      }
      return OK;
    } finally {
      given?.close();
    }
  }

  async function check({ pod }: PluginRequest): Promise<PluginAnswer> {
    if (pod === null || !synced()) return OK;
    // By the uid that the API has given: of a static pod, the runtime tells another.
    const wanted = await eligiblePod(pod);
    if (wanted === null) return OK;
    const known = [...enroller.states()].find(({ pod: { uid } }) => uid === wanted.uid);
    if (known !== undefined && IN_THE_MESH.includes(known.state)) return OK;
    return {
      kind: 'error',
      code: CNI_ERROR.notEnrolled,
      message: `pod ${pod.namespace}/${pod.name} should be in the mesh, but is not`,
    };
  }
}

const OK: PluginAnswer = { kind: 'ok' };
const IN_THE_MESH: readonly PodState[] = ['captured', 'enabled'];

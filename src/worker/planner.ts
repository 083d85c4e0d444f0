import { ILLEGAL_PORTS } from '../config/ports.ts';
import { planInboundHbone, planInboundPlaintext } from '../routing/inbound.ts';
import { planOutbound } from '../routing/outbound.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { MeshState } from '../state/mesh-state.ts';
import type { PodInfo } from '../zds/types.ts';
import type { PlanQuery } from './messages.ts';

const illegalPorts = new Set(ILLEGAL_PORTS);

/**
 * Answers the workers' questions from the mesh state. A pod that the mesh state does not know yet is waited for, as the
 * node agent is often faster than the control plane.
 */
export function createPlanner(
  mesh: MeshState,
  network: string,
  podOf: (uid: string) => PodInfo | null,
): (query: PlanQuery) => Promise<OutboundPlan | InboundPlan> {
  return async (query) => {
    const pod = podOf(query.uid) ?? UNKNOWN_POD;
    if (mesh.localWorkload(pod) === null && pod !== UNKNOWN_POD) await mesh.waitForLocalWorkload(pod);
    if (query.kind === 'outbound') return planOutbound(mesh, pod, query.target, network, query.peerIp);
    return query.query.kind === 'hbone'
      ? planInboundHbone(mesh, pod, query.query, network, illegalPorts)
      : planInboundPlaintext(mesh, pod, query.query, network, illegalPorts);
  };
}

/** A pod that was stopped while its thread asked: no workload has such a name, so the plan refuses. */
const UNKNOWN_POD: PodInfo = { uid: '', name: '', namespace: '', serviceAccount: '' };

import { ILLEGAL_PORTS } from '../config/ports.ts';
import { planInboundHbone, planInboundPlaintext } from '../routing/inbound.ts';
import type { ResolvedNames } from '../routing/names.ts';
import { planOutbound } from '../routing/outbound.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { MeshState } from '../state/mesh-state.ts';
import { readKeys } from '../state/read-keys.ts';
import { type Misses, recordMisses } from '../state/recorded-misses.ts';
import { type RouteState, recordReads } from '../state/recorded-reads.ts';
import type { PodInfo } from '../zds/types.ts';
import type { Hostnames } from './hostnames.ts';
import type { PlanQuery } from './messages.ts';

/** A plan, and the look-ups it was derived from (recorded-reads.ts). */
export interface DerivedPlan {
  readonly plan: OutboundPlan | InboundPlan;
  readonly reads: ReadonlySet<string>;
}

/**
 * Answers the workers' questions from the mesh state. `answer` is called in the turn in which the plan was made, so that
 * whoever notes the reads misses no change.
 */
export type Planner = (query: PlanQuery, answer: (derived: DerivedPlan) => void) => Promise<void>;

const illegalPorts = new Set(ILLEGAL_PORTS);

/** Asks the control plane for keys (xds/demands.ts); resolves when it has answered, or a while later. */
export type Demand = (keys: readonly string[]) => Promise<void>;

/**
 * A pod that the mesh state does not know yet is waited for, as the node agent is often faster than the control plane; and
 * names that are not known yet are looked up.
 *
 * @param demand where to ask for what the mesh state lacks; null when it holds the whole mesh
 */
export function createPlanner(
  mesh: MeshState,
  network: string,
  podOf: (uid: string) => PodInfo | null,
  demand: Demand | null,
  hostnames: Pick<Hostnames, 'addresses' | 'resolve'>,
): Planner {
  function derive(pod: PodInfo, query: PlanQuery) {
    const reads = new Set<string>();
    const unknownNames = new Set<string>();
    const names: ResolvedNames = {
      addresses(hostname) {
        reads.add(readKeys.resolvedName(hostname));
        const resolved = hostnames.addresses(hostname);
        if (resolved === null) unknownNames.add(hostname);
        return resolved;
      },
    };
    const { state, misses } = recordMisses(recordReads(mesh, reads));
    return { plan: plan(state, pod, query, names), reads, misses, unknownNames };
  }

  function plan(state: RouteState, pod: PodInfo, query: PlanQuery, names: ResolvedNames): OutboundPlan | InboundPlan {
    if (query.kind === 'outbound') return planOutbound(state, pod, query.target, network, query.peerIp, names);
    return query.query.kind === 'hbone'
      ? planInboundHbone(state, pod, query.query, network, illegalPorts)
      : planInboundPlaintext(state, pod, query.query, network, illegalPorts);
  }

  return async (query, answer) => {
    const pod = podOf(query.uid) ?? UNKNOWN_POD;
    if (mesh.localWorkload(pod) === null && pod !== UNKNOWN_POD) await mesh.waitForLocalWorkload(pod);
    const tried = new Set<string>();
    for (;;) {
      const { plan, reads, misses, unknownNames } = derive(pod, query);
      const keys = demand === null ? [] : demandedBy(query, misses, demand).filter((key) => !tried.has(key));
      const hosts = [...unknownNames].filter((hostname) => !tried.has(hostname));
      if (keys.length === 0 && hosts.length === 0) {
        answer({ plan, reads });
        return;
      }
      for (const each of [...keys, ...hosts]) tried.add(each);
      await Promise.all([keys.length === 0 || demand?.(keys), ...hosts.map((hostname) => hostnames.resolve(hostname))]);
    }
  };
}

/**
 * What a plan has to wait for. Who the client of an inbound connection is matters to telemetry alone, so that is asked
 * for and not waited for.
 */
function demandedBy({ kind }: PlanQuery, misses: Misses, demand: Demand): string[] {
  if (kind === 'outbound') return [...misses.addresses(), ...misses.services];
  void demand(misses.addresses());
  return [...misses.services];
}

/** A pod that was stopped while its thread asked: no workload has such a name, so the plan refuses. */
const UNKNOWN_POD: PodInfo = { uid: '', name: '', namespace: '', serviceAccount: '' };

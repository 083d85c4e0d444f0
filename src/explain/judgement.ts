import { ILLEGAL_PORTS } from '../config/ports.ts';
import { formatSocketAddress } from '../netns/address.ts';
import { type PolicyEntry, policyKeysOf } from '../policy/compile.ts';
import { explainPolicies } from '../policy/explain.ts';
import type { PolicyConnection } from '../policy/types.ts';
import { planInboundHbone } from '../routing/inbound.ts';
import type { MeshState } from '../state/mesh-state.ts';
import { identityOf, type Workload } from '../state/types.ts';
import type { Judgement } from './types.ts';
import type { World } from './world.ts';

/** The end of a connection, as its source sees it. */
export interface Arrival {
  readonly source: Workload;
  /** Address that the connection comes from. */
  readonly peerIp: string;
  readonly destination: Workload;
  /** Where the connection arrives: in plain text, or as a tunnel with this authority. */
  readonly address: { readonly ip: string; readonly port: number };
  readonly authority: string | null;
  readonly claimedService: string | null;
}

/** What the agent of the destination will say. Workloads of other nodes are judged by the same policies. */
export function* judgeArrival(world: World, arrival: Arrival): Generator<void, Judgement> {
  const { source, destination, peerIp, address, authority, claimedService } = arrival;
  if (destination.nativeTunnel) {
    return notJudged(
      `${destination.name} ends tunnels itself, as waypoints and gateways do: its own rules decide, which are not known here`,
    );
  }
  if (authority === null) {
    if (destination.protocol !== 'HBONE') {
      return notJudged(`${destination.name} is not in the mesh: no agent stands before it`);
    }
    return yield* judge(world.mesh, destination, connectionOf(peerIp, null, address));
  }
  const plan = planInboundHbone(
    as(world.mesh, destination),
    { uid: '', name: destination.name, namespace: destination.namespace, serviceAccount: destination.serviceAccount },
    { localIp: address.ip, peerIp, authority, forwardedHost: claimedService, fromNetwork: null },
    world.network,
    illegalPorts,
  );
  if (plan.kind === 'reject') return { kind: 'refused', reason: plan.reason.message };
  return yield* judge(world.mesh, destination, connectionOf(peerIp, identityOf(source), plan.target));
}

/** What the policies of a workload say of a connection to it. */
export function* judge(
  mesh: MeshState,
  destination: Workload,
  connection: PolicyConnection,
): Generator<void, Judgement> {
  const entries = [...policyKeysOf(mesh, destination)].map((key): PolicyEntry => [key, mesh.policy(key)]);
  const { sourceIp, sourceIdentity, destinationIp, destinationPort } = connection;
  return {
    kind: 'judged',
    as: {
      identity: sourceIdentity,
      source: sourceIp,
      destination: formatSocketAddress({ ip: destinationIp, port: destinationPort }),
    },
    ...(yield* explainPolicies(entries, connection)),
  };
}

export function notJudged(reason: string): Judgement {
  return { kind: 'not-judged', reason };
}

/** The mesh state with this workload as the pod's own, on whatever node it runs. */
export function as(mesh: MeshState, workload: Workload): MeshState {
  return { ...mesh, localWorkload: () => workload };
}

const illegalPorts: ReadonlySet<number> = new Set(ILLEGAL_PORTS);

function connectionOf(
  sourceIp: string,
  sourceIdentity: string | null,
  { ip, port }: { readonly ip: string; readonly port: number },
): PolicyConnection {
  return { sourceIp, sourceIdentity, destinationIp: ip, destinationPort: port };
}

import type { ConnectionDump } from '../filters/connection.ts';
import { parseSocketAddress } from '../netns/address.ts';
import type { PolicyConnection } from '../policy/types.ts';
import type { PlannedEndpoint } from '../routing/plan.ts';
import { explainConnection } from './explain.ts';
import { judge } from './judgement.ts';
import type { ExplainedConnection } from './types.ts';
import { QuestionError, type World } from './world.ts';

/** A live connection as its thread knows it. Plain data, structured-clonable. */
export interface LiveConnection {
  /** uid of its pod. */
  readonly pod: string;
  readonly dump: ConnectionDump;
  /** What policies judge; null for outbound connections. */
  readonly policyFacts: PolicyConnection | null;
  /** Where it went; null for inbound connections. */
  readonly endpoint: PlannedEndpoint | null;
  readonly ageMs: number;
  readonly bytesFromClient: number;
  readonly bytesFromServer: number;
}

/**
 * A live connection: what it is, what the policies say of it now, and what a new one from the same source to the same
 * destination would meet.
 *
 * @param found the connection of that id; null when no thread has it
 * @throws QuestionError
 */
export function* explainLive(
  world: World,
  id: string,
  found: LiveConnection | null,
): Generator<void, ExplainedConnection> {
  if (found === null) {
    throw new QuestionError(
      `no live connection has the id ${JSON.stringify(id)}: /config_dump lists them under "workloadState", each with its id`,
    );
  }
  const { mesh, network, pods } = world;
  const { dump, policyFacts, endpoint, ageMs, bytesFromClient, bytesFromServer } = found;
  const pod = pods.find(({ uid }) => uid === found.pod);
  const local = pod === undefined ? null : mesh.localWorkload(pod);
  const isOutbound = dump.direction === 'outbound';
  const peer = parseSocketAddress(dump.src)?.ip ?? '';
  const source = isOutbound ? local : mesh.workloadByAddress(network, peer);
  const asked = isOutbound ? (dump.originalDst ?? dump.actualDst) : dump.actualDst;
  const target = parseSocketAddress(asked);
  return {
    connection: { id, ...dump, pod: pod === undefined ? found.pod : `${pod.namespace}/${pod.name}` },
    ageMs,
    bytesFromClient,
    bytesFromServer,
    expectedIdentities: endpoint?.expectedIdentities ?? [],
    policy: policyFacts === null || local === null ? null : yield* judge(mesh, local, policyFacts),
    now:
      source === null || target === null
        ? null
        : yield* explainConnection(world, source, { address: target, named: null }, asked),
  };
}

import { CulvertError } from '../errors.ts';
import type { Policy } from '../policy/types.ts';
import { type LocalService, localFile, policyKey } from './local-schema.ts';
import { locateYaml, type Position } from './located.ts';
import type { WorkloadUpdate } from './mesh-state.ts';
import { INVALID, type Problem, type Problems } from './schema.ts';
import { type PolicyKey, type PortMap, type ServiceDefinition, serviceKey } from './types.ts';

/** A mesh read from a local file; can be applied to a store as it is. */
export interface LocalMesh {
  readonly workloads: readonly WorkloadUpdate[];
  readonly services: readonly ServiceDefinition[];
  readonly policies: readonly (readonly [PolicyKey, Policy])[];
}

export interface LoadedMesh extends LocalMesh {
  /** The first character of what the text says: `{` of a map in braces; '' when it says nothing. */
  readonly begin: string;
}

/**
 * Reads the local configuration, YAML or JSON (spec §9.8).
 *
 * @param fileName names the source in messages
 * @throws CulvertError LOCAL_CONFIG_INVALID whose message lists all problems (the first 20 in full), each with file, line,
 *   column, field path, what is given and what is accepted. Nothing else is ever thrown.
 */
export async function loadLocal(text: string, fileName: string): Promise<LoadedMesh> {
  const located = await locateYaml(text);
  if (located.root === null) {
    throw invalid(
      fileName,
      located.faults.map((fault) => ({ ...fault, path: '' })),
      located.positionOf,
    );
  }
  const found: Problem[] = [];
  const problems: Problems = (at, path, problem) => {
    found.push({ at, path, text: problem });
    return INVALID;
  };
  const { root } = located;
  const file = localFile(root, '', problems);
  if (file === INVALID) throw invalid(fileName, found, located.positionOf);
  return {
    workloads: withServiceEndpoints(file.workloads, file.services),
    services: file.services.map(({ definition }) => definition),
    policies: file.policies.map((policy) => [policyKey(policy), policy] as const),
    begin: root.kind === 'scalar' && root.value === null ? '' : text.charAt(root.at),
  };
}

/** More are counted, not shown: after the first few the cause is usually known. */
const MAX_SHOWN = 20;

function invalid(fileName: string, problems: readonly Problem[], positionOf: (at: number) => Position): CulvertError {
  const shown = [...problems]
    .sort((a, b) => a.at - b.at)
    .slice(0, MAX_SHOWN)
    .map(({ at, path, text }) => {
      const { line, column } = positionOf(at);
      return `${fileName}:${line}:${column}: ${path === '' ? '' : `${path}: `}${text}`;
    });
  if (problems.length > MAX_SHOWN) shown.push(`and ${problems.length - MAX_SHOWN} more`);
  return new CulvertError('LOCAL_CONFIG_INVALID', shown.join('\n'));
}

/**
 * Endpoints a service brings itself count as if their workload had named the service; what the workload says wins.
 * Endpoints of workloads that are not in the file cannot be reached and are left out, as are unhealthy ones of a service
 * that takes only healthy ones.
 */
function withServiceEndpoints(
  workloads: readonly WorkloadUpdate[],
  services: readonly LocalService[],
): readonly WorkloadUpdate[] {
  const added = new Map<string, Record<string, PortMap>>();
  for (const { definition, endpoints } of services) {
    const takesUnhealthy = definition.loadBalancer?.healthPolicy === 'AllowAll';
    for (const { workloadUid, port, status } of Object.values(endpoints)) {
      if (status === 'Unhealthy' && !takesUnhealthy) continue;
      const ports = added.get(workloadUid) ?? {};
      ports[serviceKey(definition)] = port;
      added.set(workloadUid, ports);
    }
  }
  if (added.size === 0) return workloads;
  return workloads.map((update) => ({
    workload: update.workload,
    services: { ...added.get(update.workload.uid), ...update.services },
  }));
}

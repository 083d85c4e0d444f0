/** State of a real agent in a real cluster (captured-mesh.json), and the local file that says the same. */
import { readFileSync } from 'node:fs';

type Json = Record<string, unknown>;

export interface CapturedMesh {
  readonly workloads: (Json & { uid: string; services?: string[] })[];
  readonly services: (Json & { endpoints: Record<string, { port: Json }> })[];
  readonly policies: Json[];
  readonly stagedServices: Json;
}

/** The dump as it was taken; only the services of each workload, which come in no particular order, are sorted. */
export function readCapturedMesh(): CapturedMesh {
  const captured = JSON.parse(readFileSync(new URL('captured-mesh.json', import.meta.url), 'utf8')) as CapturedMesh;
  for (const { services } of captured.workloads) services?.sort();
  return captured;
}

/** As a local file in JSON, where workloads say which ports they serve. */
export function capturedAsLocalFile(captured: CapturedMesh): string {
  const ports = (key: string, uid: string) =>
    captured.services.find(({ namespace, hostname }) => `${namespace}/${hostname}` === key)?.endpoints[uid]?.port ?? {};
  return JSON.stringify({
    workloads: captured.workloads.map((each) => ({
      ...each,
      services: Object.fromEntries((each.services ?? []).map((key) => [key, ports(key, each.uid)])),
    })),
    services: captured.services.map(({ endpoints: _, ...definition }) => definition),
    policies: captured.policies,
  });
}

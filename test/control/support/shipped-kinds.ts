import { readFileSync } from 'node:fs';
import { parseAllDocuments } from 'yaml';
import type { ApiServer } from '../../cni/support/api-server.ts';
import { eventually } from '../../cni/support/eventually.ts';

interface Definition {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string; readonly plural: string };
    readonly versions: readonly { readonly name: string; readonly served: boolean }[];
  };
}

/** The CustomResourceDefinitions that culvert ships. */
export function shippedKinds(): Definition[] {
  const file = new URL('../../../deploy/chart/culvert/crds.yaml', import.meta.url);
  // kubectl merges keys as well.
  return parseAllDocuments(readFileSync(file, 'utf8'), { merge: true }).map(
    (document) => document.toJS() as Definition,
  );
}

/** Installs them and waits until the API server serves every version. */
export async function installShippedKinds(server: ApiServer): Promise<void> {
  const kinds = shippedKinds();
  for (const kind of kinds) {
    await server.create('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', kind);
  }
  for (const { spec } of kinds) {
    for (const { name } of spec.versions) {
      const path = `/apis/${spec.group}/${name}/${spec.names.plural}`;
      await eventually(path, async () => (await server.call('GET', path)).status === 200);
    }
  }
}

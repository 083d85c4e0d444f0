/** A mesh that takes Kubernetes objects as they are in YAML, and resources as data. */
import type { Kind, ObjectChange, RejectedObject } from '../../../src/control/kinds.ts';
import { createMesh, type Mesh } from '../../../src/control/mesh/mesh.ts';
import { DEFAULT_MESH_SETTINGS, type MeshSettings } from '../../../src/control/mesh/settings.ts';
import { MESH_KINDS } from '../../../src/control/objects/kinds.ts';
import type { ResourceChange } from '../../../src/control/resources.ts';
import { readerOf } from '../../../src/control/sources/of-kind.ts';
import { createObjectTable } from '../../../src/kube/object-table.ts';
import { ipFromBytes } from '../../../src/netns/address.ts';
import { decode } from '../../support/xds-schema.ts';

export type Manifest = Record<string, unknown> & {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
};

export interface MeshUnderTest {
  readonly mesh: Mesh;
  /** Objects that could not be read, in order. */
  readonly rejected: RejectedObject[];
  /** What the mesh has told of since the last call. */
  changes(): { addresses: string[]; policies: string[] };
  /** Creates or replaces objects, as a source does. */
  put(...manifests: readonly Manifest[]): Promise<void>;
  remove(kind: string, key: string): Promise<void>;
  /** The Workload or Service of that name, as data; null when there is none. */
  address(name: string): Record<string, unknown> | null;
  policy(name: string): Record<string, unknown> | null;
}

export function meshUnderTest(settings: Partial<MeshSettings> = {}): MeshUnderTest {
  const mesh = createMesh({ ...DEFAULT_MESH_SETTINGS, ...settings }, (name, error) => {
    throw new Error(`${name} could not be worked out`, { cause: error });
  });
  const rejected: RejectedObject[] = [];
  const told = { addresses: new Set<string>(), policies: new Set<string>() };
  mesh.resources.onChange(({ addresses, policies }: ResourceChange) => {
    for (const name of addresses) told.addresses.add(name);
    for (const name of policies) told.policies.add(name);
  });

  let changed: ObjectChange[] = [];
  let version = 0;
  /** As a source keeps them. */
  const tables = new Map(
    mesh.kinds.map((kind) => [
      kind.kind,
      createObjectTable<unknown>({
        ...readerOf(kind),
        onChange: (before, after, key) => changed.push({ kind, key, before, after }),
        onRejected: (_, key, error) => rejected.push({ kind, key, generation: 0, reason: (error as Error).message }),
      }),
    ]),
  );

  function apply(): Promise<void> {
    const changes = changed;
    changed = [];
    mesh.apply(changes);
    return mesh.settled();
  }

  return {
    mesh,
    rejected,
    changes() {
      const result = { addresses: [...told.addresses].sort(), policies: [...told.policies].sort() };
      told.addresses.clear();
      told.policies.clear();
      return result;
    },
    put(...manifests) {
      for (const manifest of manifests) {
        const kind = kindOf(manifest.kind);
        tables.get(manifest.kind)!.put(keyOf(kind, manifest), String(++version), structuredClone(manifest));
      }
      return apply();
    },
    remove(kind, key) {
      tables.get(kind)!.drop(key);
      return apply();
    },
    address: (name) => {
      const resource = mesh.resources.address(name);
      return resource === null ? null : asAddress(resource.body);
    },
    policy: (name) => {
      const resource = mesh.resources.policy(name);
      return resource === null ? null : readable(decode('Authorization', resource.body));
    },
  };
}

/** Workload or service of an `istio.workload.Address`, with addresses as text. */
export function asAddress(body: Uint8Array): Record<string, unknown> {
  const { workload, service } = decode('Address', body) as Record<string, Record<string, unknown>>;
  return readable(workload ?? service);
}

export function readable(value: unknown): Record<string, unknown> {
  return asText(value) as Record<string, unknown>;
}

function asText(value: unknown): unknown {
  if (value instanceof Uint8Array) return ipFromBytes(value);
  if (Array.isArray(value)) return value.map(asText);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, asText(each)]));
}

function kindOf(name: string): Kind {
  const kind = MESH_KINDS.find((each) => each.kind === name);
  if (kind === undefined) throw new Error(`no kind ${name}`);
  return kind;
}

function keyOf(kind: Kind, { metadata }: Manifest): string {
  return kind.namespaced ? `${metadata.namespace}/${metadata.name}` : metadata.name;
}

/** The types of resources that are served. */

import protobuf from 'protobufjs/minimal.js';
import { ADDRESS, AUTHORIZATION } from '../../xds/delta.ts';
import { endOf, readFields } from '../../xds/wire.ts';
import type { MeshResources, Resource } from '../resources.ts';

export interface ServedType {
  readonly url: string;
  /** As istiod calls it in its metrics. */
  readonly metric: 'wds' | 'wads';
  readonly kind: 'addresses' | 'policies';
  all(resources: MeshResources): Iterable<Resource>;
  get(resources: MeshResources, name: string): Resource | null;
  /** Whether only some of the resources of that kind are of this type. */
  readonly isPart: boolean;
  /** What of the resource's bytes is sent; null when it is of no such type. */
  value(body: Uint8Array): Uint8Array | null;
}

const addresses = {
  metric: 'wds',
  kind: 'addresses',
  all: (resources: MeshResources) => resources.addresses(),
  get: (resources: MeshResources, name: string) => resources.address(name),
} as const;

const SERVED: readonly ServedType[] = [
  { ...addresses, url: ADDRESS, isPart: false, value: (body) => body },
  { ...addresses, url: 'type.googleapis.com/istio.workload.Workload', isPart: true, value: workloadIn },
  {
    url: AUTHORIZATION,
    metric: 'wads',
    kind: 'policies',
    isPart: false,
    all: (resources) => resources.policies(),
    get: (resources, name) => resources.policy(name),
    value: (body) => body,
  },
];

/** Null for a type that is not served. */
export function servedType(url: string): ServedType | null {
  return SERVED.find((type) => type.url === url) ?? null;
}

/** The message `istio.workload.Workload` inside an Address; null in that of a service. */
function workloadIn(address: Uint8Array): Uint8Array | null {
  let found: Uint8Array | null = null;
  const reader = protobuf.Reader.create(address);
  readFields(reader, address.length, (field, wireType) => {
    if (field !== ADDRESS_WORKLOAD) return false;
    const end = endOf(reader, wireType);
    found = address.subarray(reader.pos, end);
    reader.pos = end;
    return true;
  });
  return found;
}

/** Names of the services that a workload serves, as its Address says (§9.7). */
export function servicesIn(address: Uint8Array): readonly string[] {
  const workload = workloadIn(address);
  const names: string[] = [];
  if (workload === null) return names;
  const reader = protobuf.Reader.create(workload);
  readFields(reader, workload.length, (field, wireType) => {
    if (field !== WORKLOAD_SERVICES) return false;
    const end = endOf(reader, wireType);
    readFields(reader, end, (inner) => {
      if (inner !== MAP_KEY) return false;
      names.push(reader.string());
      return true;
    });
    return true;
  });
  return names;
}

/** Fields of the messages (§9.7). */
const ADDRESS_WORKLOAD = 1;
const WORKLOAD_SERVICES = 22;
const MAP_KEY = 1;

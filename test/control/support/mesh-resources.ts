/** Resources of a mesh in memory, as a control plane would make them of objects. */
import { isIPv4 } from 'node:net';
import type { MeshResources, Resource, ResourceChange } from '../../../src/control/resources.ts';
import { versionOf } from '../../support/istiod.ts';
import { decode, encode, type Json } from '../../support/xds-schema.ts';

/** By name; null removes one. */
export interface Changes {
  readonly addresses?: Readonly<Record<string, Json | null>>;
  readonly policies?: Readonly<Record<string, Json | null>>;
}

export interface TestMesh extends MeshResources {
  /** Makes changes and tells of them. */
  change(changes: Changes): void;
}

interface Held extends Resource {
  readonly aliases: readonly string[];
  readonly isService: boolean;
  readonly services: readonly string[];
  readonly node: string;
}

export function createTestMesh(initial: Changes = {}): TestMesh {
  const addresses = new Map<string, Held>();
  const policies = new Map<string, Resource>();
  const listeners: ((change: ResourceChange) => void)[] = [];
  const workloadsOf = (service: string) => [...addresses.values()].filter((each) => each.services.includes(service));
  const holdsUnlisted = (name: string) => {
    const found = policies.get(name);
    return found !== undefined && decode('Authorization', found.body).scope !== WORKLOAD_SELECTOR;
  };
  const matchOf = (resource: Held) => ({ resource, workloads: resource.isService ? workloadsOf(resource.name) : [] });

  const mesh: TestMesh = {
    address: (name) => addresses.get(name) ?? null,
    policy: (name) => policies.get(name) ?? null,
    addresses: () => addresses.values(),
    policies: () => policies.values(),
    holdsUnlisted,
    counts: () => ({ addresses: addresses.size, policies: policies.size }),
    find(key) {
      const named = addresses.get(key);
      if (named !== undefined) return [matchOf(named)];
      const found = [...addresses.values()].filter(({ aliases }) => aliases.includes(key));
      const workloads = found.filter(({ isService }) => !isService);
      return (workloads.length > 0 ? workloads : found.slice(0, 1)).map(matchOf);
    },
    aliases: (name) => addresses.get(name)?.aliases ?? [],
    workloadsOf: (service) => (addresses.get(service)?.isService ? workloadsOf(service) : null),
    workloadsOn: (node) => [...addresses.values()].filter((each) => each.node === node),
    onChange: (listener) => void listeners.push(listener),
    announce() {},
    change(changes) {
      for (const [name, content] of Object.entries(changes.addresses ?? {})) {
        if (content === null) addresses.delete(name);
        else addresses.set(name, held(name, content));
      }
      const narrowed = new Set<string>();
      const added = new Set<string>();
      for (const [name, content] of Object.entries(changes.policies ?? {})) {
        if (content !== null && !policies.has(name)) added.add(name);
        const wasWide = holdsUnlisted(name);
        if (content === null) policies.delete(name);
        else policies.set(name, { name, version: '', body: encode('Authorization', content) });
        if (wasWide && content !== null && !holdsUnlisted(name)) narrowed.add(name);
      }
      const change = {
        addresses: new Set(Object.keys(changes.addresses ?? {})),
        policies: new Set(Object.keys(changes.policies ?? {})),
        narrowed,
        added,
      };
      for (const listener of listeners) listener(change);
    },
  };
  mesh.change(initial);
  return mesh;
}

function held(name: string, content: Json): Held {
  const body = encode('Address', content);
  const { workload, service } = decode('Address', body) as {
    workload: { network: string; addresses: Buffer[]; services: Json; node: string } | null;
    service: { addresses: { network: string; address: Buffer }[] } | null;
  };
  const places = workload
    ? workload.addresses.map((address) => ({ network: workload.network, address }))
    : (service?.addresses ?? []);
  return {
    name,
    version: versionOf(body),
    body,
    aliases: places.map(({ network, address }) => `${network}/${ipText(address)}`),
    isService: service !== null,
    services: Object.keys(workload?.services ?? {}),
    node: workload?.node ?? '',
  };
}

const WORKLOAD_SELECTOR = 2;

function ipText(address: Buffer): string {
  const ip = [...address].join('.');
  if (!isIPv4(ip)) throw new Error('the test mesh has IPv4 addresses only');
  return ip;
}

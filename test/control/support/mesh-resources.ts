/** Resources of a mesh in memory, as a control plane would make them of objects. */
import { isIPv4 } from 'node:net';
import { createResourceTable, type Found } from '../../../src/control/mesh/resource-table.ts';
import type { MeshResources } from '../../../src/control/resources.ts';
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

export function createTestMesh(initial: Changes = {}): TestMesh {
  const table = createResourceTable();
  const mesh: TestMesh = {
    ...table,
    change({ addresses = {}, policies = {} }) {
      for (const [name, content] of Object.entries(addresses)) {
        if (content === null) table.removeAddress(name);
        else setAddress(name, content);
      }
      for (const [name, content] of Object.entries(policies)) {
        if (content === null) table.removePolicy(name);
        else setPolicy(name, content);
      }
      table.announce();
    },
  };

  function setAddress(name: string, content: Json): void {
    const body = encode('Address', content);
    table.setAddress(name, body, foundBy(body));
  }

  function setPolicy(name: string, content: Json): void {
    const body = encode('Authorization', content);
    table.setPolicy(name, body, decode('Authorization', body).scope === WORKLOAD_SELECTOR);
  }

  mesh.change(initial);
  return mesh;
}

function foundBy(body: Buffer): Found {
  const { workload, service } = decode('Address', body) as {
    workload: { network: string; addresses: Buffer[]; services: Json; node: string } | null;
    service: { addresses: { network: string; address: Buffer }[] } | null;
  };
  const places = workload
    ? workload.addresses.map((address) => ({ network: workload.network, address }))
    : (service?.addresses ?? []);
  return {
    addresses: places.map(({ network, address }) => `${network}/${ipText(address)}`),
    services: workload ? Object.keys(workload.services) : null,
    node: workload?.node ?? '',
  };
}

const WORKLOAD_SELECTOR = 2;

function ipText(address: Buffer): string {
  const ip = [...address].join('.');
  if (!isIPv4(ip)) throw new Error('the test mesh has IPv4 addresses only');
  return ip;
}

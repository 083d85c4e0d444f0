/** What an agent makes of the resources: read by its own decoders, judged by its own evaluation. */
import protobuf from 'protobufjs/minimal.js';
import type { MeshResources } from '../../../src/control/resources.ts';
import { compilePolicies } from '../../../src/policy/compile.ts';
import { evaluate } from '../../../src/policy/evaluate.ts';
import type { PolicyConnection } from '../../../src/policy/types.ts';
import type { MeshStore } from '../../../src/state/mesh-state.ts';
import { createMeshState } from '../../../src/state/store.ts';
import { readAddress } from '../../../src/xds/address.ts';
import { readAuthorization } from '../../../src/xds/authorization.ts';

export function agentView(resources: MeshResources): MeshStore {
  const mesh = createMeshState({ localNode: 'node1' });
  const addresses = [...resources.addresses()].map(({ body }) =>
    readAddress(protobuf.Reader.create(body), body.length),
  );
  mesh.apply({
    workloads: addresses.flatMap((address) => (address.kind === 'workload' ? [address.update] : [])),
    services: addresses.flatMap((address) => (address.kind === 'service' ? [address.definition] : [])),
    policies: [...resources.policies()].map(
      ({ name, body }) => [name, readAuthorization(protobuf.Reader.create(body), body.length)] as const,
    ),
  });
  return mesh;
}

const CONNECTION: PolicyConnection = {
  sourceIp: '10.0.0.99',
  sourceIdentity: 'spiffe://cluster.local/ns/demo/sa/client',
  destinationIp: '10.0.0.1',
  destinationPort: 8080,
};

/** Whether the workload's agent lets the connection in: of an mTLS client of the namespace, to port 8080, unless said otherwise. */
export function letsIn(mesh: MeshStore, uid: string, connection: Partial<PolicyConnection> = {}): boolean {
  const workload = mesh.workload(uid);
  if (workload === null || workload === undefined) throw new Error(`no workload ${uid}`);
  return evaluate(compilePolicies(mesh, workload), { ...CONNECTION, ...connection }).kind === 'allow';
}

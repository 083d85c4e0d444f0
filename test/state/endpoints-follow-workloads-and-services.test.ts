import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MeshStore } from '../../src/state/mesh-state.ts';
import type { LoadBalancer } from '../../src/state/types.ts';
import { meshOf, service, workload } from './mesh-builder.ts';

const KEY = 'default/web.default.svc.cluster.local';
const UID = 'Kubernetes//Pod/default/a';
const web = service('web');
const member = workload('a', { services: { [KEY]: { 80: 8080 } } });
const unhealthyMember = workload('a', { services: { [KEY]: { 80: 8080 } }, status: 'Unhealthy' });
const allowAll: LoadBalancer = { mode: 'Standard', routingPreferences: [], healthPolicy: 'AllowAll' };
const webForAll = service('web', { loadBalancer: allowAll });

function endpoints(mesh: MeshStore): string[] {
  return [...(mesh.service(KEY)?.endpoints.keys() ?? [])];
}

function staged(mesh: MeshStore): string[] {
  return [...(mesh.stagedEndpoints().get(KEY)?.keys() ?? [])];
}

test('endpoints wait for their service and are attached when it arrives', () => {
  const mesh = meshOf({ workloads: [member] });
  assert.deepEqual(staged(mesh), [UID]);
  mesh.apply({ services: [web] });
  assert.deepEqual(endpoints(mesh), [UID]);
  assert.deepEqual(staged(mesh), []);
  assert.deepEqual(mesh.service(KEY)?.endpoints.get(UID), {
    workloadUid: UID,
    port: { 80: 8080 },
    status: 'Healthy',
  });
});

test('a workload that goes while its service is awaited does not wait on', () => {
  const mesh = meshOf({ workloads: [member] }, { removedWorkloads: [UID] }, { services: [web] });
  assert.deepEqual(endpoints(mesh), []);
  assert.equal(mesh.stagedEndpoints().size, 0);
});

test('a workload that leaves a service, or goes, is no longer its endpoint', () => {
  const mesh = meshOf({ services: [web], workloads: [member] });
  mesh.apply({ workloads: [workload('a')] });
  assert.deepEqual(endpoints(mesh), []);
  mesh.apply({ workloads: [member] });
  mesh.apply({ removedWorkloads: [UID] });
  assert.deepEqual(endpoints(mesh), []);
});

test('a change of ports reaches the service', () => {
  const mesh = meshOf(
    { services: [web], workloads: [member] },
    { workloads: [workload('a', { services: { [KEY]: { 80: 9090 } } })] },
  );
  assert.deepEqual(mesh.service(KEY)?.endpoints.get(UID)?.port, { 80: 9090 });
});

test('a service keeps its endpoints when it is updated', () => {
  const mesh = meshOf({ services: [web], workloads: [member] }, { services: [service('web', { ports: { 81: 1 } })] });
  assert.deepEqual(endpoints(mesh), [UID]);
  assert.deepEqual(mesh.service(KEY)?.ports, { 81: 1 });
});

test('endpoints of a removed service are attached again when it comes back', () => {
  const mesh = meshOf({ services: [web], workloads: [member] }, { removedServices: [KEY] });
  assert.deepEqual(staged(mesh), [UID]);
  mesh.apply({ services: [web] });
  assert.deepEqual(endpoints(mesh), [UID]);
});

test('unhealthy endpoints are attached only where the service takes all', () => {
  assert.deepEqual(endpoints(meshOf({ services: [web], workloads: [unhealthyMember] })), []);
  assert.deepEqual(endpoints(meshOf({ services: [webForAll], workloads: [unhealthyMember] })), [UID]);
  assert.deepEqual(endpoints(meshOf({ workloads: [unhealthyMember] }, { services: [web] })), []);
});

test('unhealthy endpoints come and go with the health policy of the service', () => {
  const mesh = meshOf({ services: [web], workloads: [unhealthyMember] });
  mesh.apply({ services: [webForAll] });
  assert.deepEqual(endpoints(mesh), [UID]);
  mesh.apply({ services: [web] });
  assert.deepEqual(endpoints(mesh), []);
});

test('an endpoint comes and goes with the health of its workload', () => {
  const mesh = meshOf({ services: [web], workloads: [unhealthyMember] });
  mesh.apply({ workloads: [member] });
  assert.deepEqual(endpoints(mesh), [UID]);
  mesh.apply({ workloads: [unhealthyMember] });
  assert.deepEqual(endpoints(mesh), []);
  mesh.apply({ removedWorkloads: [UID] });
  mesh.apply({ services: [webForAll] });
  assert.deepEqual(endpoints(mesh), []);
});
